"""Whether a run trained exactly what one process trains that nobody disturbs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from skippipe.config import RunConfig
from skippipe.data.batches import prepare
from skippipe.fields import load_config
from skippipe.model.checkpoint import find_latest, load_stages
from skippipe.model.stage import canonical_state
from skippipe.reference import ReferenceTrainer
from skippipe.schedule import Schedule
from tests.small_schedule import STAGES

TOLERANCE = 1e-5
"""Largest relative difference of a loss, and of any weight relative to the largest of its tensor."""


def check_exact(
    workplace: Path,
    folder: Path,
    fields: list[str],
    iterations: int,
    setting: str = "ca-partial",
    lost: frozenset[int] = frozenset(),
    stages: list[list[int]] = STAGES,
    tolerance: float = TOLERANCE,
) -> None:
    """Losses, the weights of the last checkpoint, and that replicas are equal but for nodes that were lost."""
    torch.set_num_threads(1)
    config = load_config(RunConfig, workplace / "small.yaml", fields)
    plan = Schedule.load(Path(config.schedule)).settings[setting]
    reference = ReferenceTrainer(config, plan, 2, prepare(config.data))
    expected = [reference.train_iteration(iteration) for iteration in range(iterations)]
    losses = [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert losses == pytest.approx(expected, rel=tolerance)
    for trained, wanted in zip(load_stages(find_latest(folder)), reference.stages, strict=True):
        states = canonical_state(trained), canonical_state(wanted)
        for name, tensor in states[1].items():
            assert (states[0][name] - tensor).abs().max() < tolerance * tensor.abs().max(), name
    living = {node for stage in stages for node in stage} - lost
    digests = {node: re.search(r"weights (\w+)", (folder / f"node-{node}.log").read_text()) for node in living}
    assert all(digests.values())
    for replicas in stages:
        assert len({digests[node][1] for node in replicas if node in living}) == 1, "replicas differ"
