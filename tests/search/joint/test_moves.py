"""Moves of the joint search: legal, and undone exactly."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from skippipe.schedule import Costs
from skippipe.search.joint.evaluation import evaluate, record
from skippipe.search.joint.moves import KINDS, REFUSED, new_undo, propose, revert
from skippipe.search.joint.state import CHECKPOINT_TASKS, State
from tests.search.joint.states import check_runs, started


def decisions(state: State) -> list[list[int]]:
    decided = (state.node_of_slot, state.paths, state.sequence, state.node)
    tables = (state.seconds, state.after_s, state.close_s, state.rest_s, state.trip_s, state.sync_s)
    return [array.ravel().tolist() for array in (*decided, *tables)]


@pytest.mark.parametrize("kind", range(KINDS))
def test_a_move_is_undone_exactly_or_gives_a_schedule_that_runs(schedule, kind):
    problem, state = started(schedule)
    record(problem, state, True)
    undo, accepted = new_undo(state), 0
    for _ in range(300):
        before = decisions(state)
        first = propose(problem, state, undo, kind, 0.5)
        cost = math.inf if first == REFUSED else evaluate(problem, state, first, 1e9)
        if cost > 150:
            if first != REFUSED:
                revert(problem, state, undo)
            assert decisions(state) == before
            continue
        accepted += 1
        kept = first // CHECKPOINT_TASKS * CHECKPOINT_TASKS
        state.sequence[kept:] = state.repaired[kept:]
        assert record(problem, state, False)[0] == pytest.approx(cost)
        check_runs(schedule, problem, state)
    assert accepted > 3


@pytest.mark.parametrize("kind", range(KINDS))
def test_giving_up_early_is_right_about_every_limit(schedule, kind):
    problem, state = started(schedule)
    record(problem, state, True)
    undo, simulated = new_undo(state), 0
    for _ in range(200):
        first = propose(problem, state, undo, kind, 0.5)
        if first == REFUSED:
            continue
        cost = evaluate(problem, state, first, 1e9)
        if math.isfinite(cost):
            simulated += 1
            assert evaluate(problem, state, first, cost + 1e-6) == pytest.approx(cost)
            assert evaluate(problem, state, first, cost - 1e-6) == math.inf
        revert(problem, state, undo)
    assert simulated > 3


def test_messages_that_queue_are_timed_like_the_exact_simulation(queueing):
    problem, state = started(queueing)
    undo, accepted, before = new_undo(state), 0, record(problem, state, True)[0]
    check_runs(queueing, problem, state)
    assert before > record(*started(replace(queueing, costs=without_queues(queueing.costs))), True)[0]
    for kind in np.arange(200) % KINDS:
        first = propose(problem, state, undo, kind, 0.5)
        cost = math.inf if first == REFUSED else evaluate(problem, state, first, 1e9)
        if cost > 2 * before:
            if first != REFUSED:
                revert(problem, state, undo)
            continue
        accepted += 1
        kept = first // CHECKPOINT_TASKS * CHECKPOINT_TASKS
        state.sequence[kept:] = state.repaired[kept:]
        assert record(problem, state, False)[0] == pytest.approx(cost)
        check_runs(queueing, problem, state)
    assert accepted > 3


def without_queues(costs: Costs) -> Costs:
    return replace(costs, link_busy_s=None, uplink_busy_s=None)
