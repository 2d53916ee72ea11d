"""SkipPipe's two settings: cost-aware paths under CC and TC1, without and with collision avoidance (TC2)."""

from __future__ import annotations

import numpy as np

from skippipe.schedule import Plan
from skippipe.search.constraints import Whole
from skippipe.search.improve import improve_alone, improve_round
from skippipe.search.options import SolverOptions
from skippipe.search.problem import Instance
from skippipe.search.rounds import every_round, iteration_s, plan_of, start_paths

STARTS = 8
"""Collision-blind solutions of which the simulation picks the best."""
PIPELINE_SHARE = 0.3
"""Part of the time in which all microbatches of an origin share their path."""


def solve_blind(instance: Instance, options: SolverOptions) -> Plan:
    """SkipPipe without TC2: short round trips under CC and TC1; the simulation picks the best of several solutions."""
    rng = np.random.default_rng(options.seed)
    candidates: list[Whole] = []
    for start in range(STARTS):
        if candidates and options.progress.stopped:
            break
        paths = start_paths(instance, instance.pipeline.memory, rng)
        candidates.append(
            improve_alone(instance, paths, 1, 1, options.pipeline_steps, options.seconds / STARTS, rng,
                          options.progress, f"non-ca-partial: start {start + 1} of {STARTS}")
        )  # fmt: skip
    best = min(candidates, key=lambda paths: iteration_s(instance, paths))
    return plan_of(instance, every_round(instance, best), {"solver": "paths alone, annealed"})


def solve_aware(instance: Instance, options: SolverOptions) -> Plan:
    """SkipPipe: the same, aware of collisions (TC2); never worse than the collision-blind plan where that was found."""
    rng = np.random.default_rng(options.seed)
    memory, sends = instance.pipeline.memory, instance.pipeline.microbatches_per_node
    shared = improve_alone(
        instance, start_paths(instance, 1, rng), memory, sends, options.pipeline_steps,
        options.seconds * PIPELINE_SHARE, rng, options.progress, "ca-partial: one path an origin",
    )  # fmt: skip
    paths = improve_round(
        instance, np.repeat(shared, memory, axis=0), options.path_steps, options.seconds * (1 - PIPELINE_SHARE), rng,
        options.progress, "ca-partial: one path a microbatch",
    )  # fmt: skip
    plan = plan_of(instance, every_round(instance, paths), {"solver": "collision-aware paths, annealed"})
    blind = options.found.get("non-ca-partial")
    if blind is not None and blind.stages == plan.stages and blind.expected_iteration_s < plan.expected_iteration_s:
        return plan_of(instance, blind.paths_array, {"solver": blind.search["solver"]})
    return plan
