"""Who takes the first stage once all of its nodes are lost, and how long it is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from skippipe.runtime.plans import MOST_KEPT, Plans
from skippipe.runtime.replanner import Replanner
from skippipe.schedule import Schedule
from skippipe.schedule.subset import plan_for_all
from skippipe.survival.succession import SlowHeirsError, StageLostError, check_living
from skippipe.survival.view import View
from tests.runtime.test_holding import CONFIG, save
from tests.small_schedule import NODES, small_schedule
from tests.survival.instances import SHIPPED

SCHEDULE = small_schedule()
PLAN = SCHEDULE.plan("ca-partial")


def plans(
    folder: Path, here: range = range(NODES), schedule: Schedule = SCHEDULE, setting: str = "ca-partial"
) -> Plans:
    job: Any = SimpleNamespace(
        schedule=schedule,
        plan=schedule.plan(setting),
        config=CONFIG,
        folder=folder,
        checkpoint=None,
        resume=None,
        endpoint=SimpleNamespace(local=here),
    )
    return Plans(job)


def test_who_restores_the_first_stage_is_here_and_leaves_a_replica_behind(tmp_path: Path) -> None:
    assert plans(tmp_path).restorer(PLAN, {0, 1}, range(2, 6)) is None
    # One that lacks the stage is none.
    save(tmp_path, 1, 2, iteration=2)
    assert plans(tmp_path).restorer(PLAN, {0, 1}, range(2, 6)) is None
    save(tmp_path, 0, iteration=1)
    assert plans(tmp_path).restorer(PLAN, {0, 1}, range(2, 6)) == 2
    assert plans(tmp_path).restorer(PLAN, {0, 1}, [3, 5]) == 3
    assert plans(tmp_path).restorer(PLAN, {0, 1, 3}, [2, 4, 5]) == 4
    assert plans(tmp_path, range(5, 6)).restorer(PLAN, {0, 1}, range(2, 6)) == 5
    assert plans(tmp_path, range(2)).restorer(PLAN, {0, 1}, range(2, 6)) is None
    assert plans(tmp_path).restorer(PLAN, {0, 1, 3, 4}, [2, 5]) is None


def test_the_first_stage_is_kept_until_one_of_its_nodes_is_back(tmp_path: Path) -> None:
    taken = plans(tmp_path).with_first(PLAN, {0, 1}, [2])
    assert taken.stages == ((2,), (3,), (4, 5))
    assert {path[0] for path in taken.paths} == {2}
    check_living(taken, NODES)
    # Whoever comes back for another stage does not end that.
    without = plans(tmp_path).with_first(PLAN, {0, 1, 5}, [2])
    settled = plans(tmp_path).settle([2, 3, 4, 5], without)
    assert settled.stages == ((2,), (3,), (4, 5))
    assert plans(tmp_path).settle([1, 2, 3, 4, 5], settled).stages == ((1,), (2, 3), (4, 5))
    with pytest.raises(StageLostError, match="stage 0"):
        plans(tmp_path).settle([3, 4, 5], settled)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_stage_that_is_lost_sends_nobody_over_the_slowest_links(path: Path, tmp_path: Path) -> None:
    schedule = Schedule.load(path)
    for setting, plan in schedule.settings.items():
        own = plans(tmp_path, range(schedule.nodes), schedule, setting)
        for lost in plan.stages[1:]:
            assert own.skip(plan, lost).expected_step_s < 2 * plan.expected_step_s


def test_a_stage_with_one_node_left_far_from_others_is_visited_by_those_who_are_near(tmp_path: Path) -> None:
    schedule, redone = Schedule.load("original-20-nodes"), 0
    for setting in ("random", "non-ca-partial", "ca-partial"):
        plan = schedule.plan(setting)
        own, view = plans(tmp_path, range(20), schedule, setting), View(0, 0, "start", "begins", plan, -1)
        for replicas, left in [(stage, left) for stage in plan.stages[1:] for left in stage]:
            lost = set(replicas) - {left}
            try:
                following = own.succeed(view, 0, lost)
            except SlowHeirsError:
                redone += 1
                following = own.skip(plan, lost)
            check_living(following, 20)
            assert following.expected_step_s < 2.2 * plan.expected_step_s
            assert own.restart(plan, lost).expected_step_s < 2.2 * plan.expected_step_s
    assert redone


def test_a_search_begins_though_microbatches_go_round_a_stage(tmp_path: Path) -> None:
    schedule, begun = Schedule.load("original-20-nodes"), 0
    for setting in ("random", "non-ca-partial", "ca-partial"):
        plan = schedule.plan(setting)
        own = plans(tmp_path, range(20), schedule, setting)
        replanner = Replanner(own.job, own, lambda: None)
        for replicas, left in [(stage, left) for stage in plan.stages[1:] for left in stage]:
            lost = set(replicas) - {left}
            without = own.restart(plan, lost)
            view = View(1, 0, "redo", "lost", without, -1, lost=tuple(sorted(lost)))
            schedule_then = replanner.begin_with(view, without)
            assert schedule_then is not None
            schedule_then.validate()
            (start,) = schedule_then.settings.values()
            assert plan_for_all(start, view.members).stage_of().keys() == set(view.members)
            visits = without.stage_visits()[1:]
            begun += max(visits) - min(visits) > 1
    assert begun
    # With a stage less there is nothing that it knows how to search.
    without = own.skip(plan, plan.stages[1])
    assert replanner.begin_with(View(1, 0, "redo", "lost", without, -1, lost=plan.stages[1]), without) is None


def test_a_boundary_at_which_nothing_better_was_found_is_no_search(tmp_path: Path) -> None:
    own = plans(tmp_path)
    left = own.restart(PLAN, {5})
    nothing = View(2, 9, "boundary", "moved: nobody", left, -1)
    own.note(nothing)
    assert not own.is_searched(nothing)
    assert not own.searched
    found = replace(nothing, plan=replace(left, search={"solver": "joint annealing"}))
    own.note(found)
    assert own.is_searched(found)
    assert own.searched == {(0, 1, 2, 3, 4): found.plan}
    assert not own.is_searched(replace(found, joined=(4,)))


def test_a_run_of_many_views_keeps_few_plans(tmp_path: Path) -> None:
    own = plans(tmp_path)
    takeovers = [View(n, n, "takeover", "lost", own.restart(PLAN, {n % 2}), n - 1) for n in range(MOST_KEPT + 2)]
    following = [own.of(view, view.number + 1) for view in takeovers]
    assert len(own.following) == MOST_KEPT
    # One that is not kept any more is the same again.
    assert own.of(takeovers[0], 1) == following[0]
    assert len(own.following) == MOST_KEPT
    few = plans(tmp_path)
    for number in range(2 * MOST_KEPT):
        some = replace(PLAN, stages=((0, 100 + number), *PLAN.stages[1:]))
        few.note(View(number, number, "boundary", "a better plan", some, number - 1))
    few.note(View(100, 100, "boundary", "a better plan", PLAN, 99))
    assert len(few.searched) == MOST_KEPT
    assert few.settle(range(NODES), PLAN) is PLAN
