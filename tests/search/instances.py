"""Small instances for the search's tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from skippipe.fields import build
from skippipe.schedule import Costs
from skippipe.schedule.plan import Pipeline
from skippipe.search.config import SearchConfig
from skippipe.search.problem import Instance
from skippipe.search.solver import SolverOptions

LIGHT = {
    "population": 12, "trials": 30, "conflict_nodes": 8, "pipeline_steps": 300, "path_steps": 300, "joint_steps": 300,
    "time_budget_s": 1e5,
}  # fmt: skip
"""Effort for tests: every part of the search runs, none for long; steps end it, not a clock that compiling eats up."""


def light_config(**fields: Any) -> SearchConfig:
    return build(SearchConfig, {**LIGHT, **fields}, "test")


def light_options(**fields: Any) -> SolverOptions:
    """A solver's options with the effort of a test, whatever fields there are."""
    return SolverOptions(light_config(**fields), LIGHT["time_budget_s"])


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
        "random", tuple(f"place {node}" for node in range(nodes)), np.ones((nodes, nodes)),
        (bandwidth + bandwidth.T) / 2, pipeline, costs, sizes, stages,
    )  # fmt: skip
