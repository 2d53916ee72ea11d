"""Nodes are killed while they train: the others take over, and losses and weights stay those of the undisturbed run."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
import torch

from skippipe.config import RunConfig
from skippipe.data.batches import prepare
from skippipe.fields import load_config
from skippipe.model.checkpoint import find_latest, load_stages
from skippipe.model.stage import canonical_state
from skippipe.reference import ReferenceTrainer
from skippipe.report.run_folder import process_ids
from skippipe.schedule import Schedule
from tests.end_to_end.conftest import SECONDS, Start, wait_for
from tests.small_schedule import STAGES

TOLERANCE = 1e-5
ITERATIONS = 4


def check_exact(
    workplace: Path,
    folder: Path,
    fields: list[str],
    lost: set[int],
    iterations: int = ITERATIONS,
    stages: list[list[int]] = STAGES,
) -> None:
    """Losses, weights and the equality of replicas, against the undisturbed run in one process."""
    torch.set_num_threads(1)
    config = load_config(RunConfig, workplace / "small.yaml", fields)
    plan = Schedule.load(Path(config.schedule)).settings["ca-partial"]
    reference = ReferenceTrainer(config, plan, 2, prepare(config.data))
    expected = [reference.train_iteration(iteration) for iteration in range(iterations)]
    losses = [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert losses == pytest.approx(expected, rel=TOLERANCE)
    for trained, wanted in zip(load_stages(find_latest(folder)), reference.stages, strict=True):
        states = canonical_state(trained), canonical_state(wanted)
        for name, tensor in states[1].items():
            assert (states[0][name] - tensor).abs().max() < TOLERANCE * tensor.abs().max(), name
    living = {node for stage in stages for node in stage} - lost
    digests = {node: re.search(r"weights (\w+)", (folder / f"node-{node}.log").read_text()) for node in living}
    assert all(digests.values())
    for replicas in stages:
        assert len({digests[node][1] for node in replicas if node not in lost}) == 1, "replicas differ"


@pytest.mark.parametrize("seed", range(4))
def test_a_node_is_killed_at_any_moment_and_nothing_changes(start: Start, workplace: Path, seed: int) -> None:
    chance = random.Random(seed)
    lost, name = chance.randrange(6), f"survives-{seed}"
    fields = [f"iterations={ITERATIONS}", f"name={name}", f"checkpoint_every={ITERATIONS}", "emulation.time_scale=3"]
    fields.append("peers.restart=0")
    process = start("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", *fields)
    folder = workplace / "runs" / name
    wait_for(lambda: (folder / "views.jsonl").exists() and len(process_ids(folder)) == 6)
    wait_for(lambda: (folder / "metrics.jsonl").exists())
    time.sleep(chance.uniform(0.0, 2.0))
    os.kill(process_ids(folder)[lost], signal.SIGKILL)
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    check_exact(workplace, folder, fields, {lost})
    views = [json.loads(line) for line in (folder / "views.jsonl").read_text().splitlines()]
    assert [view["number"] for view in views] == [0, 1]
    assert views[1]["members"] == [node for node in range(6) if node != lost]
    assert views[1]["reason"] == f"lost: {lost}"
    assert f"node {lost} (killed by SIGKILL) lost in iteration" in errors
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["views"], summary["nodes_lost"]) == (2, 1)
    assert "nodes lost" in output
