"""Nodes that come back: which views, iterations and steps are theirs, and which steps count as undisturbed."""

from __future__ import annotations

import signal

import pytest

from benchmarks.returning import Blow, first_useful, undisturbed_step, views_of_blow
from skippipe.report.metrics import IterationMetrics
from skippipe.report.views import RunView
from skippipe.schedule.timeline import FORWARD, SYNC, Span

BLOW = Blow(2, signal.SIGKILL, 100.0, view=0)


def view(number: int, iteration: int, members: tuple[int, ...], resumed_s: float | None = 1.0) -> RunView:
    """Of three nodes in one stage, whose steps take ten seconds, five more for each that is missing."""
    way = "takeover" if number else "start"
    expected_s = 10.0 + 5 * (3 - len(members))
    return RunView(number, iteration, members, (members,), (), "", way, expected_s, resumed_s=resumed_s)


ALL, WITHOUT = (0, 1, 2), (0, 1)
VIEWS = [view(0, 0, ALL), view(1, 4, WITHOUT), view(2, 6, ALL, resumed_s=None), view(3, 7, ALL)]


def line(iteration: int, step_s: float) -> IterationMetrics:
    """An iteration's figures."""
    return IterationMetrics(iteration, 1.0, 1.0, step_s, step_s, 1, 1.0, 1)


def test_a_view_that_was_passed_over_is_no_return() -> None:
    lost, back = views_of_blow(BLOW, VIEWS)
    assert (lost.number, back.number) == (1, 3)


def test_views_before_the_blow_are_not_its_own() -> None:
    later = [*VIEWS, view(4, 9, (1, 2)), view(5, 11, ALL), view(6, 12, (0, 1)), view(7, 14, ALL)]
    lost, back = views_of_blow(Blow(2, signal.SIGKILL, 200.0, view=3), later)
    assert (lost.number, back.number) == (6, 7)


def test_who_is_not_missed_or_not_back_is_told() -> None:
    with pytest.raises(LookupError, match="nobody missed node 2"):
        views_of_blow(BLOW, VIEWS[:1])
    with pytest.raises(LookupError, match="node 2 is not back"):
        views_of_blow(BLOW, VIEWS[:3])


def test_a_node_is_useful_once_it_does_a_task() -> None:
    task, other, sync = Span(2, FORWARD, 0, 0, 1), Span(1, FORWARD, 0, 0, 1), Span(2, SYNC, None, 0, 1)
    spans = {3: [task], 7: [other, sync], 8: [sync], 9: [task], 10: [task]}
    assert first_useful(2, VIEWS[3], spans) == 2
    assert first_useful(1, VIEWS[3], spans) == 0
    with pytest.raises(LookupError, match="has done nothing since"):
        first_useful(0, VIEWS[3], spans)


def test_undisturbed_are_iterations_of_all_nodes_away_from_views() -> None:
    views = [view(0, 0, ALL), view(1, 4, WITHOUT), view(2, 8, ALL)]
    steps = [90.0, 10.2, 10.4, 90.0, 90.0, 90.0, 90.0, 90.0, 90.0, 10.3, 10.3]
    metrics = [line(iteration, step_s) for iteration, step_s in enumerate(steps)]
    assert undisturbed_step(views, metrics, 3) == pytest.approx(1.03)
