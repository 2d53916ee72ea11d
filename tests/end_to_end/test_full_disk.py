"""A disk that is full ends a run with one line, and leaves no file of a checkpoint that is not whole."""

from __future__ import annotations

import re
from pathlib import Path

from skippipe.config import RunConfig
from skippipe.data.batches import prepare
from skippipe.fields import load_config
from tests.cases import Layer, drives
from tests.end_to_end.conftest import SECONDS, Start
from tests.faults import Fault


@drives(*Fault.at(Layer.DISK))
def test_a_full_disk_is_said_in_one_line(fault: Fault, start: Start, workplace: Path, tmp_path: Path) -> None:
    most = "".join(re.findall("[0-9]", fault.what))
    cache = [f"data.cache={tmp_path}"]
    if fault is Fault.FULL_SAVING:
        # What is prepared already is not written again.
        prepare(load_config(RunConfig, workplace / "small.yaml", cache).data)
    fields = [f"name={fault.name}", "iterations=2", f"runs={tmp_path}/runs", *cache]
    run = start("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", *fields, patched=("no_space", most))
    _, errors = run.communicate(timeout=SECONDS)
    assert run.returncode == (2 if fault is Fault.FULL_PREPARING else 1), errors
    assert fault.line in errors
    assert "Traceback" not in errors
    # What a node was writing when all were ended is cleaned up by the next one that saves there.
    assert not list(tmp_path.rglob("*.safetensors"))
