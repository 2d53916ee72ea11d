"""Evaluation over live nodes, of one machine or two; some are killed, and batches go over the stages that are left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from skippipe.data.batches import prepare, validation_batches
from skippipe.model.checkpoint import find_latest, load_stages
from skippipe.model.inference import validation_loss
from skippipe.report.run_folder import process_ids
from tests.end_to_end.conftest import SECONDS, Start, alive, free_ports, wait_for

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


def on_two_machines(
    start: Start, workplace: Path, run: Path, name: str, batches: int, elsewhere: int
) -> list[subprocess.Popen[str]]:
    """Node 0, which drives, and nodes 1 to 5, which are asked to evaluate `elsewhere` batches."""
    port = free_ports(6)
    common = [f"name={name}", f"peers.first_port={port}", f'peers.bootstrap=["127.0.0.1:{port}"]']
    secret = {"SKIPPIPE_SECRET": "a secret that both machines know"}
    return [
        start(
            *(*local, "ca-partial", "2", f"{workplace}/small.yaml", *common),
            *(f"iterations={count}", "--evaluate", str(run)),
            **secret,
        )
        for local, count in ((("0", "1"), batches), (("1", "6"), elsewhere))
    ]


def test_two_machines_evaluate_together(start: Start, workplace: Path) -> None:
    run = trained(start, workplace)
    here, there = on_two_machines(start, workplace, run, "live-on-two", 30, 30)
    output, errors = here.communicate(timeout=SECONDS)
    assert here.returncode == 0, errors
    assert "over 30 batches; nodes lost: none" in output
    assert "30 batches visited stages 0 1 2; left out: none" in output
    output, errors = there.communicate(timeout=SECONDS)
    assert there.returncode == 0, errors
    assert "nothing is left to do here; the machine of node 0 has the result" in output
    folder = workplace / "runs" / "live-on-two"
    assert [line["batch"] for line in metrics(folder)] == list(range(30))


def test_nobody_evaluates_without_a_machine_that_was_asked_for_something_else(start: Start, workplace: Path) -> None:
    run = trained(start, workplace)
    machines = on_two_machines(start, workplace, run, "live-apart", 30, 31)
    for machine, count in zip(machines, (30, 31), strict=True):
        output, errors = machine.communicate(timeout=SECONDS)
        assert machine.returncode == 1, errors
        assert f"it differs in: iterations ({count} here): the evaluation ends" in errors
        assert "perplexity" not in output
    assert not metrics(workplace / "runs" / "live-apart")


def test_a_killed_driver_ends_the_evaluation_on_every_machine(start: Start, workplace: Path) -> None:
    run = trained(start, workplace)
    here, there = on_two_machines(start, workplace, run, "undriven", 1_000_000, 1_000_000)
    folder = workplace / "runs" / "undriven"
    wait_for(lambda: len(metrics(folder)) > 0)
    pids = process_ids(folder)
    os.kill(pids[0], signal.SIGKILL)
    _, errors = here.communicate(timeout=SECONDS)
    assert here.returncode == 1
    assert "node 0 was killed by SIGKILL: it drove the evaluation" in errors
    output, errors = there.communicate(timeout=SECONDS)
    assert there.returncode == 1
    assert "node 0 can't be reached: the evaluation ends" in errors
    assert "result" not in output
    assert not any(alive(pid) for pid in pids.values())


def test_a_checkpoint_that_is_not_there_is_one_line(start: Start, workplace: Path) -> None:
    process = start("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", "--evaluate", "nowhere")
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert "nowhere: no such folder" in errors
    assert len(errors.strip().splitlines()) == 1, errors
