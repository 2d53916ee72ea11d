"""A node's processes begin again a few times, later each time."""

from __future__ import annotations

import pytest

from skippipe.runtime.restarts import (
    MOST_BIRTHS,
    SOON_ITERATIONS,
    WELL_ITERATIONS,
    Restarts,
    births_from,
    of_one_launcher,
)


def test_pauses_double_and_end() -> None:
    restarts, now = Restarts(3), 100.0
    assert restarts.wait_s(now) is None
    for birth, pause in ((1, 1.0), (2, 2.0), (3, 4.0)):
        assert restarts.plan(7, now)
        assert restarts.wait_s(now) == pytest.approx(pause)
        assert restarts.take_due(now + 0.9 * pause) == []
        now += pause
        assert restarts.wait_s(now) == 0.0
        assert restarts.take_due(now) == [(7, birth)]
    assert not restarts.plan(7, now)
    assert restarts.plan(8, now), "each node has its own"


def test_what_has_not_died_may_begin_again_as_often_as_it_likes() -> None:
    restarts = Restarts(1)
    for birth in range(1, 5):
        assert restarts.plan(7, 0.0, left_out=True)
        assert restarts.take_due(1.0) == [(7, birth)]
    assert restarts.plan(7, 0.0)
    assert not restarts.plan(7, 0.0, left_out=True)
    assert not Restarts(0).plan(7, 0.0)


def pause_after(restarts: Restarts, now: float, iterations: int | None, left_out: bool = False) -> float:
    """Let a process of node 7 end after so many iterations; how long the next one is waited for."""
    assert restarts.plan(7, now, iterations, left_out)
    pause = restarts.wait_s(now)
    assert pause is not None
    assert len(restarts.take_due(now + pause)) == 1
    return pause


def test_pauses_are_short_again_once_a_process_has_trained_well() -> None:
    restarts = Restarts(20)
    # The first process; then one that never joins, and some that die at once.
    assert [pause_after(restarts, 0.0, iterations) for iterations in (None, None, 0, WELL_ITERATIONS - 1)] == [
        1,
        2,
        4,
        8,
    ]
    assert [pause_after(restarts, 1e6, WELL_ITERATIONS + 7 * far) for far in range(9)] == [1.0] * 9
    assert [pause_after(restarts, 2e6, iterations) for iterations in (1, 1, 500)] == [2, 4, 1]
    assert restarts.deaths[7] == 16, "all count, however long the process had trained"


def test_what_is_left_out_soon_after_it_is_back_has_died() -> None:
    restarts = Restarts(20)
    for iterations, deaths in ((None, 0), (0, 1), (SOON_ITERATIONS - 1, 2), (SOON_ITERATIONS, 2)):
        pause_after(restarts, 0.0, iterations, left_out=True)
        assert restarts.deaths[7] == deaths
    assert [pause_after(restarts, 0.0, iterations, left_out=True) for iterations in (0, 1, 2, 3)] == [1, 2, 4, 1]


def test_no_pause_is_longer_than_half_a_minute() -> None:
    restarts = Restarts(20)
    for _ in range(20):
        assert restarts.plan(7, 0.0)
        longest = restarts.wait_s(0.0)
        restarts.take_due(30.0)
    assert longest == 30.0


def test_births_tell_launchers_apart_and_later_ones_are_larger() -> None:
    first, joined = Restarts(3), Restarts(3, births_from(1000.0))
    for restarts in (first, joined):
        restarts.plan(7, 0.0)
    ((_, second),), ((_, later),) = first.take_due(1.0), joined.take_due(1.0)
    assert second == 1
    assert second < births_from(1000.0) < later < births_from(1001.0)
    assert of_one_launcher(0, second)
    assert of_one_launcher(births_from(1000.0), later)
    assert not of_one_launcher(second, later)
    assert not of_one_launcher(later, births_from(1001.0))
    assert births_from(0.0) > 0, "whoever joins is never taken for a first process"


def test_a_node_never_gets_the_births_of_another_launcher() -> None:
    restarts = Restarts(1, births_from(1.0))
    for _ in range(MOST_BIRTHS - 1):
        assert restarts.plan(7, 0.0, left_out=True)
        ((_, birth),) = restarts.take_due(1.0)
    assert of_one_launcher(birth, births_from(1.0))
    assert not restarts.plan(7, 0.0, left_out=True)
