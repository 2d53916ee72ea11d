"""Plans to lose nodes of: the shipped ones and random ones, and which nodes may be lost."""

from __future__ import annotations

import numpy as np

from skippipe.config import CONFIGS
from skippipe.schedule import Plan, Schedule
from skippipe.schedule.plan import make_plan
from tests.search.instances import every_path, random_instance

SHAPES = (((3, 2, 2, 2), 3), ((2, 2, 2), 3), ((4, 3, 3, 3, 3), 4), ((3, 3), 2), ((4,), 1))
"""Sizes of stages, and the path length."""
SHIPPED = sorted((CONFIGS / "schedules").glob("*.json"))


def random_schedule(seed: int) -> Schedule:
    """A schedule with the plan "any": random legal paths, first come, first served."""
    rng = np.random.default_rng(seed)
    sizes, length = SHAPES[rng.integers(len(SHAPES))]
    sends = int(rng.integers(1, 5))
    instance = random_instance(sizes, length, sends, sends, seed)
    stages = [list(stage) for stage in instance.fixed_stages]
    paths = np.array([walk[rng.integers(len(walk))] for o in stages[0] for walk in [every_path(instance, o)] * sends])
    plan = make_plan(stages, rng.permutation(paths), instance.costs, sends * sizes[0], [0.5] * len(sizes), {})
    return Schedule(
        instance.network_name,
        instance.locations,
        instance.latency_ms,
        instance.bandwidth_gib_s,
        instance.pipeline,
        instance.costs,
        {"any": plan},
    )


def random_losses(plan: Plan, rng: np.random.Generator) -> frozenset[int]:
    """Nodes of which each stage keeps one, at least one lost if that can be."""
    spare = [node for stage in plan.stages for node in rng.permutation(stage)[1:].tolist()]
    if not spare:
        return frozenset()
    return frozenset(rng.permutation(spare)[: rng.integers(1, len(spare) + 1)].tolist())
