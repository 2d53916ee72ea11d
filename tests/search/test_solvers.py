"""Assignment, conflict-based search and the settings' solvers: legal, seeded, in the paper's order."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skippipe.config import CONFIGS
from skippipe.schedule import Schedule
from skippipe.search.assignment import Links, assign, score
from skippipe.search.baselines import bottleneck_assignment
from skippipe.search.config import SearchConfig
from skippipe.search.conflict_search import ConflictSearch
from skippipe.search.driver import SOLVERS, search
from skippipe.search.matching import bottleneck, nearest_next, stage_order
from skippipe.search.problem import Instance
from skippipe.search.progress import Progress
from skippipe.search.rounds import every_round, iteration_s, plan_of
from tests.search.instances import light_config, light_options, random_instance

ORIGINAL = CONFIGS / "schedules/original-20-nodes.json"


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(4, 5))
@settings(max_examples=40, deadline=None)
def test_bottleneck_matchings_are_least(seed: int, rows: int, columns: int) -> None:
    hop_s = np.random.default_rng(seed).uniform(0, 9, (9, 9))
    left, right = np.arange(rows), np.arange(4, 4 + columns)
    chosen = bottleneck_assignment(hop_s[np.ix_(left, right)])
    assert len(set(chosen)) == rows
    assert np.isclose(hop_s[left, right[chosen]].max(), bottleneck(left, right, hop_s))
    least = min(max(hop_s[a, b] for a, b in zip(left, order, strict=True))
                for order in itertools.permutations(right, rows))  # fmt: skip
    assert np.isclose(least, bottleneck(left, right, hop_s))


@given(st.integers(0, 10**6), st.integers(2, 6))
@settings(max_examples=30, deadline=None)
def test_stage_order_is_the_shortest_walk(seed: int, stages: int) -> None:
    weight = np.random.default_rng(seed).uniform(0, 9, (stages, stages))
    length, order = stage_order(weight)
    walks = [(0, *rest) for rest in itertools.permutations(range(1, stages))]
    lengths = [sum(weight[walk[i], walk[i + 1]] for i in range(stages - 1)) for walk in walks]
    assert np.isclose(length, min(lengths))
    assert np.isclose(length, sum(weight[order[i], order[i + 1]] for i in range(stages - 1)))
    greedy_length, greedy = nearest_next(weight)
    assert sorted(greedy) == list(range(stages))
    assert greedy_length >= length - 1e-9


def test_more_stages_than_are_ordered_exactly() -> None:
    length, order = stage_order(np.random.default_rng(0).uniform(0, 9, (14, 14)))
    assert sorted(order) == list(range(14))
    assert length > 0


def test_assignment_improves_its_score_and_repeats_for_a_seed() -> None:
    instance = replace(random_instance((5, 3, 3, 3, 3, 3), 4, 3, 6, 1), stages=None)
    runs = [assign(instance, 20, 60, 60.0, np.random.default_rng(3), Progress()) for _ in range(2)]
    assert runs[0] == runs[1]
    links = Links((instance.costs.hop_s + instance.costs.hop_s.T) / 2, instance.pair_sync_s)

    def value(stages: tuple[tuple[int, ...], ...]) -> float:
        group = np.empty(20, dtype=np.int64)
        for stage, members in enumerate(stages):
            group[list(members)] = stage
        return score(group, 6, links)[0]

    assert tuple(len(stage) for stage in runs[0][0]) == (5, 3, 3, 3, 3, 3)
    values = [value(stages) for stages in runs[0]]
    assert values == sorted(values)
    start = assign(instance, 20, 0, 60.0, np.random.default_rng(3), Progress())
    assert values[0] < value(start[0])


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("aware", [False, True])
def test_conflict_search_keeps_the_constraints(shared: bool, aware: bool) -> None:
    instance = random_instance((3, 2, 2, 2), 3, 2, 4, 5)
    search = ConflictSearch(instance, shared, aware, np.random.default_rng(0))
    with Progress().phase("test", 60, 60.0) as phase:
        paths = search.run(phase)
    assert paths is not None
    visits = np.bincount(paths[:, 1:].ravel(), minlength=9)
    assert (visits[3:] == (1 if shared else 2)).all()
    plan = plan_of(instance, every_round(instance, paths), {})
    instance.schedule({"ca-partial": plan}).validate()
    assert plan.expected_iteration_s == pytest.approx(search.best_seconds)


def test_a_clash_free_round_is_found_where_there_is_one() -> None:
    instance = random_instance((3, 2, 2, 2), 3, 1, 1, 8)
    search = ConflictSearch(instance, False, True, np.random.default_rng(0))
    with Progress().phase("test", 500, 60.0) as phase:
        assert search.run(phase) is not None
        root = search.root(phase)
    assert root is not None
    assert search.best_seconds >= root.times[:, -1].max()


@pytest.fixture(scope="module")
def light_schedule() -> Schedule:
    config = light_config()
    return search(Instance.from_config(config), config, Progress())


def test_a_search_gives_valid_plans_in_the_papers_order(light_schedule: Schedule) -> None:
    times = [light_schedule.settings[name].expected_iteration_s for name in SOLVERS if name != "joint"]
    assert times[0] > times[1] > times[2] >= times[3]
    for plan in light_schedule.settings.values():
        assert 0 < plan.search["lower_bound_s"] <= plan.expected_iteration_s
        assert plan.search["lower_bound_step_s"] <= plan.expected_step_s
    assert Schedule.from_json(light_schedule.to_json()).to_json() == light_schedule.to_json()


def test_the_same_seed_gives_the_same_plans(light_schedule: Schedule) -> None:
    config = light_config()
    again = search(Instance.from_config(config), config, Progress())
    for name in ("baseline", "random", "non-ca-partial", "ca-partial"):
        assert again.settings[name].paths == light_schedule.settings[name].paths


def test_the_originals_solution_is_found_on_its_stages() -> None:
    instance = Instance.from_schedule(Schedule.load(ORIGINAL), "ca-partial")
    options = light_options(conflict_nodes=100, pipeline_steps=20_000, path_steps=2_000)
    assert SOLVERS["ca-partial"](instance, options).expected_iteration_s <= 33.4


def test_stopped_search_still_gives_every_setting() -> None:
    config: SearchConfig = light_config()
    progress = Progress()
    progress.stop()
    schedule = search(Instance.from_config(config), config, progress)
    schedule.validate()
    assert list(schedule.settings) == list(SOLVERS)


def test_rounds_repeat_origin_by_origin() -> None:
    instance = random_instance((3, 2, 2, 2), 3, 2, 4, 0)
    shared = np.array([[0, 3, 5], [1, 4, 7], [2, 6, 8]])
    whole = every_round(instance, shared)
    assert whole[:, 0].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert iteration_s(instance, shared) == plan_of(instance, whole, {}).expected_iteration_s
