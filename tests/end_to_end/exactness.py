"""Whether a run trained exactly what one process trains that nobody disturbs."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from skippipe.config import RunConfig
from skippipe.data.batches import prepare
from skippipe.fields import load_config
from skippipe.model.checkpoint import find_latest, load_stages
from skippipe.model.stage import canonical_state
from skippipe.reference import ReferenceTrainer
from skippipe.replay import tensor_difference
from skippipe.schedule import Schedule
from tests.small_schedule import STAGES

TOLERANCE = 1e-5
"""Largest relative difference of a loss, and of any tensor of weights as a whole."""
LONG_TOLERANCE = 1e-4
"""The same of runs whose iterations nobody counts beforehand: rounding grows with them."""


def check_exact(
    workplace: Path,
    folder: Path,
    fields: list[str],
    iterations: int,
    setting: str = "ca-partial",
    lost: frozenset[int] = frozenset(),
    stages: list[list[int]] = STAGES,
    views: Sequence[Mapping[str, Any]] = (),
    restore: Callable[[int, ReferenceTrainer], None] = lambda iteration, reference: None,
    is_complete: bool = True,
    tolerance: float = TOLERANCE,
    by_number: bool = True,
) -> None:
    """Losses, the weights of the last checkpoint, and that replicas are equal but for nodes that were lost.

    Each iteration took the paths of the last of the `views` that had begun by then; by default the setting's. Before
    each, `restore` may change the one process. Weights are compared if there is a complete checkpoint, each number
    over the largest of its tensor, or tensors as a whole.
    """
    torch.set_num_threads(1)
    config = load_config(RunConfig, workplace / "small.yaml", fields)
    plan = Schedule.load(Path(config.schedule)).settings[setting]
    reference = ReferenceTrainer(config, plan, 2, prepare(config.data))
    expected = []
    for iteration in range(iterations):
        if begun := [view for view in views if view["iteration"] <= iteration]:
            paths, stages_then = (tuple(map(tuple, begun[-1][name])) for name in ("paths", "stages"))
            reference.take_up(dataclasses.replace(plan, paths=paths, stages=stages_then))
        restore(iteration, reference)
        expected.append(reference.train_iteration(iteration))
    losses = [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert losses == pytest.approx(expected, rel=tolerance)
    stages_trained = load_stages(find_latest(folder)) if is_complete else []
    for trained, wanted in zip(stages_trained, reference.stages, strict=is_complete):
        states = canonical_state(trained), canonical_state(wanted)
        for name, tensor in states[1].items():
            gap = float((states[0][name] - tensor).abs().max() / tensor.abs().max())
            difference = gap if by_number else tensor_difference(states[0][name], tensor)
            assert difference < tolerance, f"{name} differs by {difference:.1e}"
    living = {node for stage in stages for node in stage} - lost
    digests = {node: re.search(r"weights (\w+)", (folder / f"node-{node}.log").read_text()) for node in living}
    assert all(digests.values())
    for replicas in stages:
        assert len({digests[node][1] for node in replicas if node in living}) <= 1, "replicas differ"
