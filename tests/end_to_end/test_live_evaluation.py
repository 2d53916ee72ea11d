"""Evaluation over live nodes: half of them are killed meanwhile, and batches go over the stages that are left."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from skippipe.data.batches import prepare, validation_batches
from skippipe.model.checkpoint import find_latest, load_stages
from skippipe.model.inference import validation_loss
from skippipe.report.run_folder import process_ids
from tests.end_to_end.conftest import SECONDS, Start, alive, wait_for

BATCHES = 3000


def trained(start: Start, workplace: Path) -> Path:
    """Folder of a run with a checkpoint."""
    folder = workplace / "runs" / "trained"
    if not folder.exists():
        arguments = ["name=trained", "iterations=3", "checkpoint_every=3", "optimizer.learning_rate=0.01"]
        process = start("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", *arguments)
        _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, errors
    return folder


def metrics(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_half_of_the_nodes_are_killed_and_the_evaluation_goes_on(start: Start, workplace: Path) -> None:
    run = trained(start, workplace)
    fields = ["name=live", f"iterations={BATCHES}"]
    process = start("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", *fields, "--evaluate", str(run))
    folder = workplace / "runs" / "live"
    wait_for(lambda: len(metrics(folder)) > 20)
    pids = process_ids(folder)
    for node in (2, 3, 4):
        os.kill(pids[node], signal.SIGKILL)
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    assert not any(alive(pid) for pid in pids.values())
    assert all(f"node {node} was killed by SIGKILL" in errors for node in (2, 3, 4))
    assert f"over {BATCHES} batches; nodes lost: " in output

    lines = metrics(folder)
    assert [line["batch"] for line in lines] == list(range(BATCHES))
    visited = [tuple(line["visited"]) for line in lines]
    after = visited.index((0, 2))
    assert after > 20
    assert set(visited[:after]) == {(0, 1, 2)}
    assert set(visited[after:]) == {(0, 2)}
    checkpoint = find_latest(run)
    batches = list(validation_batches(prepare(checkpoint.meta.config.data), 2, 32, BATCHES))
    stages = load_stages(checkpoint)
    for line in [*lines[:20], *lines[after : after + 20], lines[-1]]:
        batch = batches[line["batch"] % len(batches)]
        assert line["loss"] == pytest.approx(validation_loss(stages, tuple(line["visited"]), [batch]), rel=1e-4)


def test_a_killed_driver_ends_the_evaluation(start: Start, workplace: Path) -> None:
    run = trained(start, workplace)
    fields = ["name=undriven", "iterations=1000000"]
    process = start("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", *fields, "--evaluate", str(run))
    folder = workplace / "runs" / "undriven"
    wait_for(lambda: len(metrics(folder)) > 0)
    pids = process_ids(folder)
    os.kill(pids[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "node 0 was killed by SIGKILL: it drove the evaluation" in errors
    assert not any(alive(pid) for pid in pids.values())


@pytest.mark.parametrize(
    ("first", "path", "expected"),
    [("0", "nowhere", "nowhere: no such folder"), ("1", "nowhere", "--evaluate needs all nodes on this machine")],
)
def test_bad_arguments_give_one_line(start: Start, workplace: Path, first: str, path: str, expected: str) -> None:
    peers = ["peers.first_port=4000", 'peers.bootstrap=["127.0.0.1:4000"]']
    process = start(first, "6", "ca-partial", "2", f"{workplace}/small.yaml", *peers, "--evaluate", path)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert expected in errors
    assert len(errors.strip().splitlines()) == 1, errors
