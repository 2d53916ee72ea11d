"""Small instances for the search's tests, and their paths and round trips written plainly."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from skippipe.fields import build
from skippipe.schedule import Costs
from skippipe.schedule.plan import Pipeline
from skippipe.schedule.simulate import step_nodes, step_seconds
from skippipe.schedule.validation import path_problem
from skippipe.search.config import SearchConfig
from skippipe.search.path_search import Window
from skippipe.search.problem import Instance
from skippipe.search.solver import SolverOptions

LIGHT = {
    "population": 12,
    "trials": 30,
    "constraint_sets": 8,
    "pipeline_steps": 300,
    "path_steps": 300,
    "joint_steps": 300,
    "time_budget_s": None,
}
"""Effort for tests: every part of the search runs, none for long; steps end it, not a clock that compiling eats up."""


def light_config(**fields: Any) -> SearchConfig:
    return build(SearchConfig, {**LIGHT, **fields}, "test")


def light_options(**fields: Any) -> SolverOptions:
    """A solver's options with the effort of a test, whatever fields there are."""
    return SolverOptions(light_config(**fields), math.inf)


def random_instance(sizes: tuple[int, ...], path_length: int, memory: int, sends: int, seed: int) -> Instance:
    """Random hops (not symmetric) and node speeds; nodes in the order of the stages."""
    rng = np.random.default_rng(seed)
    nodes = sum(sizes)
    hop_s = rng.uniform(0.05, 3.0, (nodes, nodes))
    np.fill_diagonal(hop_s, 0.0)
    bandwidth = rng.uniform(0.01, 1.0, (nodes, nodes))
    costs = Costs(rng.uniform(0.1, 1.0, nodes), 0.25, 1.5, 0.13, hop_s)
    pipeline = Pipeline(len(sizes), path_length, memory, 1, 8, 1, 8, 1, sends, 256, 10**8)
    bounds = np.cumsum((0, *sizes))
    stages = tuple(tuple(range(bounds[i], bounds[i + 1])) for i in range(len(sizes)))
    return Instance(
        network_name="random",
        locations=tuple(f"place {node}" for node in range(nodes)),
        latency_ms=np.ones((nodes, nodes)),
        bandwidth_gib_s=(bandwidth + bandwidth.T) / 2,
        pipeline=pipeline,
        costs=costs,
        stage_sizes=sizes,
        stages=stages,
    )


def round_trip_end(instance: Instance, path: tuple[int, ...], release_s: float, windows: list[Window]) -> float:
    """End of a round trip that waits out the windows: the rule of the path search, written plainly."""
    costs, array = instance.costs, np.array([path])
    places, lasts = step_nodes(array)[0], step_seconds(array, costs)[0]
    now = release_s
    for step, (node, duration) in enumerate(zip(places, lasts, strict=True)):
        if step:
            now += costs.hop_s[places[step - 1], node]
        moved = True
        while moved:
            moved = False
            for taken, begin, end in windows:
                if taken == node and now < end and begin < now + duration + costs.task_gap_s:
                    now, moved = end, True
        now += duration
    return now


def every_path(instance: Instance, origin: int) -> list[tuple[int, ...]]:
    """Every legal path from an origin."""
    stages = instance.fixed_stages
    walks = itertools.permutations(range(1, len(stages)), instance.pipeline.path_length - 1)
    legal = [walk for walk in walks if path_problem([0, *walk]) is None]
    return [(origin, *nodes) for walk in legal for nodes in itertools.product(*(stages[stage] for stage in walk))]
