"""The lower bounds stay below every plan that the simulation knows."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from skippipe.search.annealing import improve_round
from skippipe.search.baselines import solve_baseline
from skippipe.search.bounds import (
    bounds_of_any_stages,
    bounds_of_given_stages,
    busiest_node_s,
    cheapest_round_trips,
)
from skippipe.search.joint.solver import JointOptions, search_joint
from skippipe.search.progress import Progress
from skippipe.search.rounds import every_round, iteration_s, plan_of, random_paths
from tests.search.instances import light_options, random_instance

SHAPES = st.sampled_from([((3, 2, 2, 2), 3), ((2, 2, 2), 3), ((5, 3, 3, 3, 3, 3), 4), ((2, 1, 1), 2)])


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.integers(1, 3), st.integers(1, 3), st.integers(0, 10**6))
def test_never_above_a_plan(shape: tuple[tuple[int, ...], int], memory: int, rounds: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    instance = random_instance(*shape, memory, memory * rounds, seed)
    instance = replace(instance, pipeline=replace(instance.pipeline, head_bytes=(seed % 3) * 10**8 or None))
    cuts = np.cumsum(shape[0])[:-1]
    stages = np.split(rng.permutation(instance.nodes), cuts)
    instance = instance.with_stages(tuple(tuple(int(node) for node in stage) for stage in stages))
    paths = random_paths(instance, rng)
    if not np.isfinite(iteration_s(instance, paths)):
        return
    with Progress().phase("test", 60, 10.0) as phase:
        improved, _ = improve_round(instance, paths, rng, phase)
    plans = [plan_of(instance, every_round(instance, each), {}) for each in (paths, improved)]
    plans.append(solve_baseline(instance, light_options()))
    plans += [search_joint(instance, plans[1], JointOptions(10.0, 200, seed, sync=sync)) for sync in (True, False)]
    for plan in plans:
        for bounds in (bounds_of_any_stages, bounds_of_given_stages):
            iteration, step = bounds(instance, plan)
            assert 0 < iteration <= plan.expected_iteration_s + 1e-9
            assert iteration <= step <= plan.expected_step_s + 1e-9


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 5), st.integers(0, 10**6))
def test_no_cycle_is_shorter_than_the_cheapest_round_trip(path_length: int, seed: int) -> None:
    instance = random_instance((3, 2, 2), 3, 1, 1, seed)
    costs = instance.costs
    work = costs.forward_s + costs.backward_s
    for node, bound in enumerate(cheapest_round_trips(instance, path_length)):
        others = [other for other in range(instance.nodes) if other != node]
        for rest in permutations(others, path_length - 1):
            path = [node, *rest]
            hops = costs.hop_s[path, [*rest, node]] + costs.hop_s[[*rest, node], path]
            assert bound <= costs.loss_s[node] + work[path].sum() + hops.sum() + 1e-9


def test_bound_of_any_stages_is_reached_where_all_links_are_alike() -> None:
    instance = random_instance((2, 2, 2), 3, 2, 2, 0)
    even = replace(instance.costs, hop_s=np.where(np.eye(6) > 0, 0.0, 9.0), forward_s=np.full(6, 0.5))
    instance = replace(instance, costs=even, bandwidth_gib_s=np.full((6, 6), 0.1))
    plan = solve_baseline(instance, light_options())
    found = search_joint(instance, plan, JointOptions(10.0, 2000, 0))
    iteration, step = bounds_of_any_stages(instance, found)
    assert found.expected_iteration_s <= iteration * 1.02
    assert found.expected_step_s <= step * 1.02


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.1, 5), min_size=1, max_size=4), st.integers(1, 6))
def test_busiest_node_is_the_best_spread(visit_s: list[float], visits: int) -> None:
    def spread(left: int, nodes: list[float]) -> float:
        if len(nodes) == 1:
            return left * nodes[0]
        return min(max(count * nodes[0], spread(left - count, nodes[1:])) for count in range(left + 1))

    exact = spread(visits, visit_s)
    assert exact * (1 - 1e-6) <= busiest_node_s(np.array(visit_s), visits) * (1 + 1e-9) <= exact * (1 + 1e-6)


def test_the_head_counts_in_the_sync_of_stage_0_alone_and_joint_reports_it() -> None:
    instance = random_instance((3, 2, 2, 2), 3, 1, 1, 0)
    plain = instance.sync_s(instance.fixed_stages)
    heavy = replace(instance, pipeline=replace(instance.pipeline, head_bytes=instance.pipeline.stage_bytes))
    assert heavy.sync_s(heavy.fixed_stages) == [2 * plain[0], *plain[1:]]
    start = plan_of(heavy, every_round(heavy, random_paths(heavy, np.random.default_rng(0))), {})
    plan = search_joint(heavy, start, JointOptions(1e5, 300, 0))
    assert list(plan.sync_s) == heavy.sync_s(plan.stages)
    assert plan.expected_step_s <= start.expected_step_s
    assert bounds_of_given_stages(heavy, plan)[1] >= plan.sync_s[0]
