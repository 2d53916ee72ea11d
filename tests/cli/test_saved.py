"""What the user is told of checkpoints, on a machine that has all of them and on one that has a part."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from skippipe.cli.saved import check_part, newest_checkpoint, saved_after
from skippipe.config import ModelConfig, RunConfig
from skippipe.data.prepared import TokenFile
from skippipe.errors import UserError
from skippipe.model import checkpoint
from skippipe.model.checkpoint import checkpoint_folder, set_aside, stage_file
from skippipe.model.checkpoint_meta import FORMAT, Meta
from tests.small_schedule import small_schedule

VOCABULARY = 300
CONFIG = RunConfig(model=ModelConfig(d_model=16, heads=2, context=16))
META = Meta(4, 3, VOCABULARY, "baseline", "0" * 64, "1" * 26, CONFIG)
PREPARED = TokenFile(Path("tokenizer.model"), VOCABULARY, Path("tokens"), 1000, 100)


def save(run: Path, *stages: int, iteration: int = 4) -> Path:
    """Stages of a checkpoint, all numbers zero."""
    meta = dataclasses.replace(META, iteration=iteration)
    folder = checkpoint_folder(run, iteration)
    folder.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        tensors = {name: torch.zeros(shape) for name, shape in meta.shapes(stage).items()}
        text = json.dumps({"format": FORMAT, "stage": stage, **dataclasses.asdict(meta)})
        save_file(tensors, stage_file(folder, stage), {"skippipe": text})
    return folder


def test_a_machine_that_has_a_part_names_it_and_one_that_has_all_asks_for_all(tmp_path: Path) -> None:
    folder = save(tmp_path, 0, 2)
    where, missing = saved_after(tmp_path, 4, is_alone=False, lost=[])
    assert (where, missing) == (f"{folder} (stage 0, 2 of 0 to 2; the others lie on other machines)", None)
    assert "no complete checkpoint" in str(saved_after(tmp_path, 4, is_alone=True, lost=[]).missing)
    assert saved_after(tmp_path, 4, is_alone=False, lost=[1]).missing == "nobody is left that has stage 1"
    assert saved_after(tmp_path, 8, is_alone=False, lost=[]) == ("on other machines", None)
    save(tmp_path, 1)
    for is_alone in (True, False):
        assert saved_after(tmp_path, 4, is_alone, lost=[]) == (str(folder), None)
    stage_file(folder, 1).write_bytes(b"")
    for is_alone in (True, False):
        assert "truncated" in str(saved_after(tmp_path, 4, is_alone, lost=[]).missing)


def test_a_failed_run_says_from_where_to_go_on(tmp_path: Path) -> None:
    for is_alone in (True, False):
        assert newest_checkpoint(tmp_path, "newest checkpoint", is_alone, None).startswith("no checkpoint was made")
    folder = save(tmp_path, 1)
    said = newest_checkpoint(tmp_path, "newest checkpoint", is_alone=False, before=tmp_path / "other")
    assert said == (
        f"newest checkpoint: {folder}, of which stage 1 is here; if other machines have the rest,"
        f" go on from it with --resume {tmp_path} on every machine"
    )
    assert "no complete checkpoint" in newest_checkpoint(tmp_path, "newest checkpoint", is_alone=True, before=None)
    save(tmp_path, 0, 2)
    said = newest_checkpoint(tmp_path, "newest checkpoint", is_alone=True, before=None)
    assert said == f"newest checkpoint: {folder}; go on from it with --resume {tmp_path}"


def test_a_failed_run_that_left_no_checkpoint_names_the_one_that_it_went_on_from(tmp_path: Path) -> None:
    before, run = save(tmp_path / "before", 0, 1, 2), tmp_path / "run"
    for is_alone in (True, False):
        said = newest_checkpoint(run, "newest checkpoint", is_alone, before)
        assert said.startswith("no checkpoint was made")
        assert said.endswith(f"; this run went on from {before}")
    save(run, 0, 1, 2)
    set_aside(run, 3)
    said = newest_checkpoint(run, "newest good checkpoint", True, before)
    assert "no complete checkpoint" in said
    assert said.endswith(f"; this run went on from {before}")


def test_a_part_of_another_model_or_that_is_unsound_is_refused_before_the_start(tmp_path: Path) -> None:
    def check(path: Path = tmp_path, **model: int) -> None:
        config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, **model))
        check_part(path, config, small_schedule(), "baseline", PREPARED)

    check(tmp_path / "nowhere")
    save(tmp_path, 1)
    check()
    with pytest.raises(UserError, match=r"of another model, model\.d_model: 16 saved, 32 in this run"):
        check(d_model=32)
    stage_file(checkpoint_folder(tmp_path, 4), 1).write_bytes(b"")
    with pytest.raises(UserError, match=r"stage-1\.safetensors: truncated .* move .* away"):
        check()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="no folder"):
        check(tmp_path / "file")


def test_a_checkpoint_that_another_machine_has_set_aside_already_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, folder = checkpoint_folder(tmp_path, 5), save(tmp_path, 0)
    monkeypatch.setattr(checkpoint, "folders_in", lambda parent: [gone, folder])
    set_aside(tmp_path, 3)
    assert [entry.name for entry in folder.parent.iterdir()] == ["not-finite-000004"]
