"""A disk that is full ends a run with one line, and leaves nothing half written."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

import pytest

from tests.end_to_end.conftest import SECONDS, Start


class Full(Enum):
    """When the disk is full: the bytes that a file may have, and the line that the user reads."""

    PREPARING = 20_000, "error: data: can't be prepared ("
    SAVING = 300_000, "can't be saved ("


@pytest.mark.parametrize("full", Full)
def test_a_full_disk_is_said_in_one_line(full: Full, start: Start, workplace: Path, tmp_path: Path) -> None:
    most, line = full.value
    # What is prepared already is not written again.
    cache = [f"data.cache={tmp_path}"] if full is Full.PREPARING else []
    fields = [f"name=full-{full.name}", "iterations=2", f"runs={tmp_path}/runs", *cache]
    run = start("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", *fields, patched=("no_space", str(most)))
    _, errors = run.communicate(timeout=SECONDS)
    assert run.returncode == 1, errors
    assert line in errors
    assert "Traceback" not in errors
    left = [path.name for path in tmp_path.rglob("*") if path.suffix in (".tmp", ".safetensors")]
    assert left == []
