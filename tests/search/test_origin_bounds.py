"""The closer bounds for any stages stay below every plan, and above the quick ones."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skippipe.schedule import Plan
from skippipe.search.bounds import bounds_of_any_stages, bounds_of_given_stages
from skippipe.search.joint.solver import JointOptions, search_joint
from skippipe.search.origin_bounds import OriginBounds, closer_bounds_of_any_stages
from skippipe.search.problem import Instance
from skippipe.search.rounds import every_round, iteration_s, plan_of, random_paths
from tests.search.instances import random_instance

SHAPES = st.sampled_from(
    [((3, 2, 2, 2), 3), ((2, 2, 2), 3), ((5, 3, 3, 3, 3, 3), 4), ((1, 1, 1, 1), 4), ((2, 1, 1, 1, 1), 3)]
)
ROUNDS = 150


def shuffled(instance: Instance, seed: int) -> Instance:
    """The instance with other nodes in its stages."""
    cuts = np.cumsum(instance.stage_sizes)[:-1]
    parts = np.split(np.random.default_rng(seed).permutation(instance.nodes), cuts)
    return instance.with_stages(tuple(tuple(part.tolist()) for part in parts))


def some_plan(instance: Instance, seed: int) -> Plan | None:
    """A plan of random paths in the instance's stages, None if they wait for each other for ever."""
    paths = random_paths(instance, np.random.default_rng(seed))
    if not np.isfinite(iteration_s(instance, paths)):
        return None
    return plan_of(instance, every_round(instance, paths), {})


@settings(max_examples=15, deadline=None)
@given(SHAPES, st.integers(1, 3), st.integers(1, 3), st.integers(0, 10**6))
def test_between_the_quick_bounds_and_every_plan(
    shape: tuple[tuple[int, ...], int], memory: int, rounds: int, seed: int
) -> None:
    instance = random_instance(*shape, memory, memory * rounds, seed)
    instance = replace(instance, pipeline=replace(instance.pipeline, head_bytes=(seed % 3) * 10**8 or None))
    plans = [plan for i in range(6) if (plan := some_plan(shuffled(instance, seed + i), seed))]
    if not plans:
        return
    plans += [search_joint(instance, plans[0], JointOptions(1e5, 300, seed, sync=sync)) for sync in (True, False)]
    iteration, step = closer_bounds_of_any_stages(instance, plans[0], ROUNDS)
    quick = bounds_of_any_stages(instance, plans[0])
    assert quick[0] <= iteration <= step
    assert quick[1] <= step
    for plan in plans:
        assert iteration <= plan.expected_iteration_s + 1e-9
        assert step <= plan.expected_step_s + 1e-9


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.integers(1, 3), st.integers(1, 3), st.sampled_from([0.01, 1.0]), st.booleans(), st.integers(0, 10**6))
def test_every_plan_keeps_the_rules(
    shape: tuple[tuple[int, ...], int], memory: int, rounds: int, hops: float, sync: bool, seed: int
) -> None:
    """Visits have room on every node, round trips at every origin; with short hops there is little room left."""
    instance = shuffled(random_instance(*shape, memory, memory * rounds, seed), seed)
    instance = replace(instance, costs=replace(instance.costs, hop_s=instance.costs.hop_s * hops))
    plan = some_plan(instance, seed)
    if plan is None:
        return
    costs, paths, rules = instance.costs, plan.paths_array, OriginBounds(instance, plan, sync)
    total_s = plan.expected_step_s if sync else plan.expected_iteration_s
    sync_s = plan.sync_s[0] if sync else 0.0
    case = replace(rules.first_cases()[0], inside=frozenset(plan.stages[0]), outside=frozenset(), sync_s=sync_s)
    visits = np.bincount(paths[:, 1:].ravel(), minlength=instance.nodes)
    assert (visits <= rules.visits_until(case, total_s)).all()
    starts = plan.starts(costs)
    trips_s = starts[:, -1] + costs.backward_s[paths[:, 0]] - starts[:, 0]
    room_s = rules.room_s(case, total_s)
    for slot, (origin, _) in enumerate(sorted(plan.sends.items(), key=lambda entry: entry[1])):
        assert trips_s[paths[:, 0] == origin].sum() <= room_s[slot, origin] + 1e-9


def even(sync: bool) -> Instance:
    """An instance in which every node and every link is like the others."""
    instance = random_instance((2, 2, 2), 3, 2, 2, 0)
    alike = replace(instance.costs, hop_s=np.where(np.eye(6) > 0, 0.0, 9.0), forward_s=np.full(6, 0.5))
    return replace(instance, costs=alike, bandwidth_gib_s=np.full((6, 6), 0.1 if sync else 1e6))


@pytest.mark.parametrize("sync", [True, False])
def test_a_bound_a_twentieth_too_high_is_above_a_plan(sync: bool) -> None:
    instance = even(sync)
    plan = some_plan(instance, 0)
    assert plan
    found = search_joint(instance, plan, JointOptions(1e5, 2000, 0, sync=sync))
    iteration, step = closer_bounds_of_any_stages(instance, found, ROUNDS)
    assert iteration <= found.expected_iteration_s < 1.05 * iteration
    assert step <= found.expected_step_s < 1.05 * step


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_with_a_microbatch_an_origin_it_reaches_the_best_origins_longest_round_trip(seed: int) -> None:
    """Brute force over all origins and their paths gives what the bound must reach."""
    instance = random_instance((2, 2, 2), 3, 1, 1, seed)
    plan = some_plan(instance, seed)
    if plan is None:
        return
    bound = OriginBounds(instance, plan, sync=False).bound(0.0, 0.0, 1000)
    costs = instance.costs
    work = costs.forward_s + costs.backward_s

    def trip_s(path: tuple[int, ...]) -> float:
        around = [*path, path[0]]
        hops = sum(costs.hop_s[a, b] + costs.hop_s[b, a] for a, b in pairwise(around))
        return float(hops + work[list(path)].sum() + costs.loss_s[path[0]])

    least = min(
        max(
            min(trip_s((origin, *rest)) for rest in permutations(set(range(6)) - set(origins), 2)) for origin in origins
        )
        for origins in combinations(range(6), 2)
    )
    assert bound >= least - 0.02


@settings(max_examples=15, deadline=None)
@given(st.integers(3, 4), st.integers(0, 10**6))
def test_paths_of_up_to_four_nodes_are_the_cheapest(path_length: int, seed: int) -> None:
    instance = random_instance((2, 2, 2) if path_length == 3 else (2, 2, 2, 2), path_length, 1, 1, seed)
    plan = some_plan(instance, seed)
    if plan is None:
        return
    rng = np.random.default_rng(seed)
    relaxed = OriginBounds(instance, plan, sync=False)
    price_s, weight = rng.uniform(0, 3, instance.nodes), rng.uniform(0.5, 2, instance.nodes)
    case = replace(relaxed.first_cases()[0], inside=frozenset({2}), price_s=price_s, weight=weight)
    path_s, relays = relaxed.cheapest_paths(case)
    for origin in range(instance.nodes):

        def cost_s(rest: tuple[int, ...], origin: int = origin) -> float:
            around = [origin, *rest, origin]
            links = relaxed.links_s[around[:-1], around[1:]].sum()
            seconds = links + relaxed.work_s[around[:-1]].sum() + instance.costs.loss_s[origin]
            return float(weight[origin] * seconds + price_s[list(rest)].sum())

        others = set(range(instance.nodes)) - {origin, 2}
        assert path_s[origin] == pytest.approx(min(map(cost_s, permutations(others, path_length - 1))))
        assert path_s[origin] == pytest.approx(cost_s(tuple(relays[origin])))


def test_the_step_of_given_stages_counts_the_sync_after_the_work() -> None:
    instance = random_instance((2, 2, 2), 3, 3, 6, 1)
    plan = some_plan(instance, 1)
    assert plan
    iteration, step = bounds_of_given_stages(instance, plan)
    assert step >= iteration + plan.sync_s[0] - 1e-9
