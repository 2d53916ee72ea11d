"""Moves of the joint search: legal, and undone exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest

from skippipe.search.joint.evaluation import evaluate, record
from skippipe.search.joint.moves import KINDS, REFUSED, Undo, propose, revert
from skippipe.search.joint.state import CHECKPOINT_TASKS, State
from tests.search.joint.states import check_runs, started


def new_undo(state: State) -> Undo:
    return Undo(np.zeros(3, dtype=np.int64), np.zeros_like(state.paths[:2]), np.zeros_like(state.paths))


def decisions(state: State) -> list[list[int]]:
    return [array.ravel().tolist() for array in (state.node_of_slot, state.paths, state.sequence, state.node)]


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
