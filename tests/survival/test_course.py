"""Training in views, tortured: nobody works in one view on what others do in another, and all have the same history."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skippipe.report import views
from skippipe.survival.course import Course, Report
from skippipe.survival.following import next_view
from skippipe.survival.succession import StageLostError
from skippipe.survival.view import FIRST_RESTORED, View
from tests.small_schedule import small_schedule
from tests.survival import trainer
from tests.survival.faults import breaks
from tests.survival.planner import Planner, plan_of
from tests.survival.planted import NEXT_VIEWS
from tests.survival.training import Training

SEEDS = 300


def test_torture() -> None:
    counts: Counter[str] = Counter()
    for seed in range(SEEDS):
        training = Training(seed)
        training.run()
        counts += training.counts
        counts["ended"] += training.has_ended
    assert counts["ended"] < 150
    ways = ("takeover", "redo", "boundary", "passed over")
    for what in (*ways, "came back", "moves", "restored", "had to end well"):
        assert counts[what] > 20, what
    assert counts["went back"] > 5
    assert counts["restored the first"] > 2


@pytest.mark.parametrize("planted", NEXT_VIEWS)
def test_a_wrong_base_is_found(planted: Callable[..., View], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "next_view", planted)
    assert any(breaks(Training(seed)) for seed in range(SEEDS))


def test_a_member_keeps_to_what_it_said_first() -> None:
    course = Course(View(0, 0, "start", "the run begins", plan_of([0, 1]), -1), -1, -1)
    for iteration in range(3):
        course.begun = iteration
        course.commit(iteration, {0: [0.0], 1: [0.0]})
    assert course.report(is_urgent=False).limit == 2
    # Another proposer may ask again while the first one's view is being decided on.
    assert course.report(is_urgent=True).limit == 2
    assert [course.may_begin(iteration) for iteration in (2, 3)] == [True, False]
    course.adopt(View(1, 3, "boundary", "joined: 2", plan_of([0, 1, 2]), -1, joined=(2,), donors={2: 0}))
    assert course.may_begin(3)
    assert [course.take_up(iteration) for iteration in (2, 3)] == [[], [course.running]]


def test_a_report_survives_its_bytes() -> None:
    report = Report(3, {0: [1.5, float("inf")], 7: [0.0, 2.0]}, 5, True, False, (1, 2), (2,))
    assert Report.from_bytes(report.to_bytes(), 8) == report


def test_whoever_has_the_figures_of_others_hands_them_on() -> None:
    view = View(1, 4, "boundary", "joined: 2", plan_of([0, 1, 2]), -1, joined=(2,), donors={2: 0})
    joiner = Course(None, -1, has_state=False)
    assert joiner.adopt(view)
    assert joiner.report(is_urgent=False).limit == 3
    joiner.take_up(4)
    figures = {0: [1.0], 1: [2.0]}
    joiner.complete(3, figures)
    behind = Course(View(0, 0, "start", "the run begins", plan_of([0, 1]), -1), 3, 2, {0: [0.0], 1: [0.0]})
    assert behind.adopt(view)
    # Node 0, whose state it was, is lost, and nobody else had heard what it had of iteration 3.
    reports = {1: behind.report(is_urgent=True), 2: joiner.report(is_urgent=True)}
    following = next_view(behind, reports, (), Planner(behind), None)
    assert (following.committed, following.first_iteration, following.members) == (3, 4, (1, 2))
    assert following.figures == {0: (1.0,), 1: (2.0,)}
    assert behind.adopt(following)
    assert [view.number for view in behind.take_up(3)] == [1, 2]
    assert behind.committed == 3


def test_the_first_stage_is_restored_by_who_has_done_all_that_is_committed() -> None:
    view = View(0, 0, "start", "the run begins", plan_of(range(4), [1, 2, 3]), -1)
    ahead, behind = Course(view, 3, 3, {node: [1.0] for node in range(4)}), Course(view, 3, 2)
    reports = {node: course.report(is_urgent=True) for node, course in ((1, behind), (2, ahead), (3, ahead))}
    following = next_view(ahead, reports, (), Planner(ahead, Random(0)), None)
    assert (following.way, following.first_iteration, following.lost) == ("redo", 4, (0,))
    # Node 1 has still to step with the stage that it holds.
    assert (following.plan.stages, following.restored) == (((2,), (1, 3)), {2: ()})
    assert following.reason == f"lost: 0; {FIRST_RESTORED}: 2" == f"lost: 0; {views.FIRST_RESTORED}: 2"
    assert following.fallback is None
    with pytest.raises(StageLostError, match="stage 0"):
        next_view(ahead, {1: reports[1]}, (), Planner(ahead, Random(0)), None)


def test_whoever_was_left_out_in_between_ends() -> None:
    joiner = Course(None, -1)
    assert joiner.adopt(View(3, 4, "boundary", "joined: 2", plan_of([0, 2]), -1, joined=(2,), donors={2: 0}))
    assert not joiner.adopt(View(5, 9, "boundary", "joined: 2", plan_of([0, 2]), -1, joined=(2,), donors={2: 0}))


@given(st.binary(max_size=40))
def test_bytes_that_are_no_report_are_refused_as_such(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Report.from_bytes(data, 6)


@pytest.mark.parametrize("place", range(7))
@pytest.mark.parametrize("value", [None, "x", [1], {"a": 1}, [[None, 2]], [["x"]], 1e400])
def test_a_report_with_something_else_in_a_place_is_refused_or_read(place: int, value: object) -> None:
    view = View(0, 0, "start", "the run begins", small_schedule().plan("ca-partial"), -1)
    document = json.loads(Course(view, 0).report(True).to_bytes())
    document[place] = value
    try:
        report = Report.from_bytes(json.dumps(document).encode(), 6)
    except ValueError:
        return
    numbers = (report.committed, report.limit, *report.figures, *report.suspects, *report.hung)
    assert all(isinstance(number, int) for number in numbers)
