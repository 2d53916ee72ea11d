"""The lower bounds stay below every plan that the simulation knows."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from skippipe.search.baselines import solve_baseline
from skippipe.search.bounds import busiest_node_s, lower_bounds
from skippipe.search.improve import improve_round
from skippipe.search.progress import Progress
from skippipe.search.rounds import every_round, iteration_s, plan_of, random_paths
from tests.search.instances import light_options, random_instance

SHAPES = st.sampled_from([((3, 2, 2, 2), 3), ((2, 2, 2), 3), ((5, 3, 3, 3, 3, 3), 4), ((2, 1, 1), 2)])


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.integers(1, 3), st.integers(1, 3), st.integers(0, 10**6))
def test_never_above_a_plan(shape: tuple[tuple[int, ...], int], memory: int, rounds: int, seed: int) -> None:
    instance = random_instance(*shape, memory, memory * rounds, seed)
    rng = np.random.default_rng(seed)
    paths = random_paths(instance, rng)
    if not np.isfinite(iteration_s(instance, paths)):
        return
    improved, _ = improve_round(instance, paths, 60, 10.0, rng, Progress(), "")
    plans = [plan_of(instance, every_round(instance, each), {}) for each in (paths, improved)]
    plans.append(solve_baseline(instance, light_options()))
    for plan in plans:
        sends = Counter(path[0] for path in plan.paths)
        iteration, step = lower_bounds(instance, plan.stages, sends, plan.path_length)
        assert 0 < iteration <= plan.expected_iteration_s + 1e-9
        assert iteration <= step <= plan.expected_step_s + 1e-9


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.1, 5), min_size=1, max_size=4), st.integers(1, 6))
def test_busiest_node_is_the_best_spread(visit_s: list[float], visits: int) -> None:
    def spread(left: int, nodes: list[float]) -> float:
        if len(nodes) == 1:
            return left * nodes[0]
        return min(max(count * nodes[0], spread(left - count, nodes[1:])) for count in range(left + 1))

    exact = spread(visits, visit_s)
    assert exact * (1 - 1e-6) <= busiest_node_s(np.array(visit_s), visits) * (1 + 1e-9) <= exact * (1 + 1e-6)
