"""From which checkpoint a stage is restored that nobody holds any more."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file

from skippipe.config import ModelConfig, RunConfig
from skippipe.model.checkpoint import Checkpoint, checkpoint_folder, stage_file
from skippipe.model.checkpoint_meta import FORMAT, Meta
from skippipe.runtime.holding import newest_checkpoint

CONFIG = RunConfig(model=ModelConfig(d_model=16, heads=2, context=16))
META = Meta(4, 3, 300, "baseline", "0" * 64, "1" * 26, CONFIG)


def save(run: Path, *stages: int, iteration: int) -> Path:
    meta = dataclasses.replace(META, iteration=iteration)
    folder = checkpoint_folder(run, iteration)
    folder.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        text = json.dumps({"format": FORMAT, "stage": stage, **dataclasses.asdict(meta)})
        tensors = {name: torch.zeros(shape) for name, shape in meta.shapes(stage).items()}
        save_file(tensors, stage_file(folder, stage), {"skippipe": text})
    return folder


def test_a_stage_is_restored_from_the_newest_checkpoint_here_that_has_it(tmp_path: Path) -> None:
    before, own = tmp_path / "before", tmp_path / "own"

    def found(agreed: Path | None, resume: Path | None) -> str | None:
        checkpoint = Checkpoint(agreed, META) if agreed else None
        job: Any = SimpleNamespace(folder=own, checkpoint=checkpoint, resume=resume, config=CONFIG)
        newest = newest_checkpoint(job, 1)
        return str(newest.folder.relative_to(tmp_path)) if newest else None

    assert found(None, None) is None
    assert found(None, before) is None
    # The one that the machines agreed on has the stage elsewhere; of a newer one it may be here.
    save(before, 1, iteration=2)
    agreed = save(before, 0, iteration=4)
    save(before, 1, iteration=6)
    assert found(agreed, before) == "before/checkpoints/iteration-000002"
    # Whoever comes later does not know on which they agreed.
    assert found(None, before) == "before/checkpoints/iteration-000006"
    save(own, 1, iteration=8)
    assert found(agreed, before) == "own/checkpoints/iteration-000008"
    # An unsound file is passed over.
    stage_file(checkpoint_folder(own, 8), 1).write_bytes(b"")
    assert found(agreed, before) == "before/checkpoints/iteration-000002"
