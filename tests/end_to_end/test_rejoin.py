"""Nodes are killed and come back: losses and weights stay those of the undisturbed run, also of those that came back."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from skippipe.report.run_folder import process_ids
from tests.end_to_end.conftest import SECONDS, Start, wait_for
from tests.end_to_end.test_survival import check_exact

ITERATIONS = 12


def views_of(folder: Path) -> list[dict[str, Any]]:
    """The run's views."""
    return [json.loads(line) for line in (folder / "views.jsonl").read_text().splitlines()]


def begin(start: Start, workplace: Path, name: str, *more: str) -> tuple[Any, Path, list[str]]:
    """A run that has done its first iteration."""
    fields = [f"iterations={ITERATIONS}", f"name={name}", f"checkpoint_every={ITERATIONS}", *more]
    process = start("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", "emulation.time_scale=3", *fields)
    folder = workplace / "runs" / name
    wait_for(lambda: (folder / "metrics.jsonl").exists() and len(process_ids(folder)) == 6)
    return process, folder, fields


def test_a_node_is_killed_and_comes_back(start: Start, workplace: Path) -> None:
    process, folder, fields = begin(start, workplace, "back")
    os.kill(process_ids(folder)[3], signal.SIGKILL)
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    print(errors)
    views = views_of(folder)
    assert [view["reason"] for view in views] == ["the run begins", "lost: 3", "joined: 3"]
    assert [view["way"] for view in views] == ["start", "takeover", "boundary"]
    assert views[2]["members"] == list(range(6))
    assert views[2]["paths"] == views[0]["paths"]
    assert f"node 3 back in iteration {views[2]['iteration']} with stage 1 of node 2" in errors
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["views"], summary["nodes_lost"], summary["nodes_joined"]) == (3, 1, 1)
    check_exact(workplace, folder, fields, set(), ITERATIONS)
