"""Whichever stages but the first lose all of their nodes, the others have a plan that ends and visits only them."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skippipe.schedule import Plan, Schedule
from skippipe.schedule.validation import path_problem
from skippipe.survival.skipping import paths_without, stages_instead
from skippipe.survival.succession import Paths, StageLostError, Stages, check_living, plan_first_served
from tests.small_schedule import small_schedule
from tests.survival.instances import SHIPPED, random_schedule


def living(plan: Plan, gone: set[int], lost: set[int]) -> Stages:
    """The stages without some stages and without some nodes."""
    return tuple(
        () if number in gone else tuple(node for node in stage if node not in lost)
        for number, stage in enumerate(plan.stages)
    )


def hold(schedule: Schedule, plan: Plan, stages: Stages) -> None:
    """What must be true of the paths that are left."""
    for is_anew in (False, True):
        hold_of_paths(schedule, plan, stages, paths_without(plan, stages, schedule.costs, is_anew), is_anew)


def hold_of_paths(schedule: Schedule, plan: Plan, stages: Stages, paths: Paths, is_anew: bool) -> None:
    """What must be true of these."""
    after = plan_first_served(stages, paths, [0.0] * len(stages), schedule.costs, len(paths))
    check_living(after, schedule.nodes)
    visited_before, there = plan.stage_of(), after.stage_of()
    whole = {number for number, nodes in enumerate(stages) if nodes}
    assert after.path_length == min(plan.path_length, len(whole))
    # A stage that was trained is trained on.
    assert whole & {visited_before[node] for path in plan.paths for node in path} <= {
        there[node] for path in after.paths for node in path
    }
    for old, new in zip(plan.paths, after.paths, strict=True):
        before, now = [visited_before[node] for node in old], [there[node] for node in new]
        if is_anew and not set(old) <= there.keys():
            # Stages may be others, if those of before are far.
            assert len(set(now)) == len(now)
            assert now[0] == 0
            assert new[0] == old[0] or old[0] not in there
            continue
        # What lives is visited as before, by the same node if it lives.
        assert whole & set(before) <= set(now)
        assert all(node in new for node in old if node in there)
        if set(before) <= whole:
            assert now == before


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_paths_visit_what_lives(seed: int) -> None:
    schedule, draw = random_schedule(seed), np.random.default_rng(seed)
    plan = schedule.plan("any")
    for count in range(1, len(plan.stages) - 1):
        gone = set(draw.permutation(np.arange(1, len(plan.stages)))[:count].tolist())
        lost = {int(draw.choice(stage)) for stage in plan.stages if len(stage) > 1 and draw.random() < 0.5}
        hold(schedule, plan, living(plan, gone, lost))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_plans_lose_any_stage(path) -> None:  # type: ignore[no-untyped-def]
    schedule = Schedule.load(path)
    for plan in schedule.settings.values():
        for stage in range(1, len(plan.stages)):
            hold(schedule, plan, living(plan, {stage}, set()))


@pytest.mark.parametrize("setting", ["baseline", "ca-partial"])
def test_any_stages_but_the_first_may_be_lost_together(setting: str) -> None:
    schedule = Schedule.load("original-20-nodes")
    plan, others = schedule.plan(setting), range(1, len(schedule.plan(setting).stages))
    for gone in itertools.chain.from_iterable(itertools.combinations(others, count) for count in others):
        hold(schedule, plan, living(plan, set(gone), set()))


def test_the_last_visit_of_a_stage_is_not_left_out_though_its_node_is_far() -> None:
    schedule = small_schedule()
    plan, hop_s = schedule.plan("ca-partial"), schedule.costs.hop_s.copy()
    hop_s[0, 3] = hop_s[3, 0] = 100.0
    stages = living(plan, set(), {1, 2})
    paths = paths_without(plan, stages, replace(schedule.costs, hop_s=hop_s), True)
    assert len([path for path in paths if path == (0, 3)]) == 1


@pytest.mark.parametrize("is_anew", [False, True])
def test_who_has_another_stage_now_is_not_visited_for_the_one_before(is_anew: bool) -> None:
    schedule = Schedule.load("original-20-nodes")
    plan = schedule.plan("ca-partial")
    moved, *stay = plan.stages[1]
    stages = (plan.stages[0], tuple(stay), (*plan.stages[2], moved), *plan.stages[3:])
    now = {node: number for number, nodes in enumerate(stages) for node in nodes}
    paths, before = paths_without(plan, stages, schedule.costs, is_anew), plan.stage_of()
    for old, new in zip(plan.paths, paths, strict=True):
        assert len({now[node] for node in new}) == len(old)
        # Chosen anew they may be others, if those of before are far.
        assert is_anew or [now[node] for node in new] == [before[node] for node in old]


def test_stage_0_can_not_be_skipped() -> None:
    schedule = Schedule.load(SHIPPED[0])
    plan = next(iter(schedule.settings.values()))
    with pytest.raises(StageLostError, match="stage 0"):
        paths_without(plan, living(plan, {0}, set()), schedule.costs, True)


def test_the_nearest_stage_is_visited_instead_and_of_two_the_one_with_fewer_visits() -> None:
    assert stages_instead([0, 1, 3], [0, 1, 2, 4, 5], 3, [0, 0, 5, 0, 4, 0]) == [0, 1, 4]
    assert stages_instead([0, 1, 3], [0, 1, 2, 4, 5], 3, [0, 0, 4, 0, 5, 0]) == [0, 1, 2]
    assert stages_instead([0, 2, 1], [0, 1, 2], 3, [0] * 4) == [0, 2, 1]
    # The nearest one that keeps within the bound on skipping: stage 2 would leave a jump from 2 to 7.
    assert path_problem([0, 2, 7]) is not None
    assert stages_instead([0, 1, 7], [0, 2, 3, 7], 3, [0] * 8) == [0, 3, 7]
