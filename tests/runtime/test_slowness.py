"""A node that takes much longer than it usually does is told, once, and again when that is over."""

from __future__ import annotations

import pytest

from skippipe.runtime.events import NodeSlow
from skippipe.runtime.slowness import Watch, slowness
from skippipe.schedule.timeline import BACKWARD, FORWARD, LOSS, Span
from tests.small_schedule import small_schedule


def told(*values: float) -> list[tuple[int, float]]:
    """Iterations and factors of what is told of a node with such values; another one stays as it is."""
    watch, news = Watch(), []
    for iteration, value in enumerate(values):
        news += watch.look(iteration, {3: value, 4: 7.0})
    assert all(event.node == 3 for event in news)
    return [(event.iteration, event.factor) for event in news]


def test_a_node_that_becomes_slow_is_told_once_and_again_when_it_is_not() -> None:
    assert told(1, 1, 1, 1, 5, 5, 5, 5, 1, 1) == [(4, 5.0), (8, 1.0)]


def test_a_single_slow_iteration_and_slow_beginnings_are_no_news() -> None:
    assert told(1, 1, 1, 5, 1, 5, 1, 1) == []
    assert told(9, 9, 1, 1, 1, 1) == []
    assert told(1, 1, 1, 1.9, 1.9, 1.9) == []


def test_a_node_without_tasks_is_neither() -> None:
    assert told(1, 1, 1, 0, 0, 0, 1, 5, 0, 5) == [(8, 5.0)]
    assert slowness([], small_schedule().costs, 0) == 0.0


def test_what_became_slow_slowly_is_usual() -> None:
    values = [1.05**iteration for iteration in range(60)]
    assert told(*values) == []


def test_slowness_is_measured_over_expected_whatever_the_tasks_are() -> None:
    costs = small_schedule().costs
    seconds = {FORWARD: costs.forward_s[2], LOSS: costs.loss_s[2], BACKWARD: costs.backward_s[2]}
    spans = [Span(2, kind, 0, 10.0, 10.0 + 3 * seconds[kind]) for kind in (FORWARD, FORWARD, LOSS, BACKWARD)]
    assert slowness(spans, costs, 2) == pytest.approx(3.0)


def test_an_event_says_it() -> None:
    assert Watch().look(0, {1: 5.0}) == []
    watch = Watch()
    for iteration in range(4):
        watch.look(iteration, {1: 2.0})
    watch.look(4, {1: 6.0})
    assert watch.look(5, {1: 6.0}) == [NodeSlow(1, 4, 3.0)]
