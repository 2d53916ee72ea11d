"""The parts of the joint search: rules, moves and their undoing, and the simulation against the exact one."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skippipe.config import CONFIGS
from skippipe.schedule import Schedule
from skippipe.schedule.simulate import order_from_starts, simulate_order
from skippipe.schedule.validation import path_problem
from skippipe.search.constraints import obeys_rules
from skippipe.search.joint.evaluation import evaluate, record
from skippipe.search.joint.moves import KINDS, REFUSED, Undo, propose, revert
from skippipe.search.joint.state import (
    CHECKPOINT_TASKS,
    Problem,
    State,
    link_scenarios,
    make_problem,
    make_state,
)
from skippipe.search.problem import Instance

ORIGINAL = CONFIGS / "schedules/original-20-nodes.json"


@pytest.fixture(scope="module")
def schedule() -> Schedule:
    return Schedule.load(ORIGINAL)


def started(schedule: Schedule, scenarios: int = 0) -> tuple[Problem, State]:
    plan, costs = schedule.plan("ca-partial"), schedule.costs
    hop_s = link_scenarios(costs.hop_s, 0.1 if scenarios else 0.0, scenarios, 0)
    problem = make_problem(hop_s, costs, 3, plan, Instance.from_schedule(schedule, "ca-partial").pair_sync_s)
    return problem, make_state(problem, plan, schedule.plan("ca-partial").starts(schedule.costs))


def new_undo(state: State) -> Undo:
    return Undo(np.zeros(3, dtype=np.int64), np.zeros_like(state.paths[:2]), np.zeros_like(state.paths))


def decisions(state: State) -> list[list[int]]:
    return [array.ravel().tolist() for array in (state.node_of_slot, state.paths, state.sequence, state.node)]


def test_the_warm_start_costs_what_its_plan_says(schedule):
    problem, state = started(schedule)
    assert record(problem, state, True)[1] == pytest.approx(schedule.plan("ca-partial").expected_step_s)


@functools.cache
def shipped_problem() -> Problem:
    return started(Schedule.load(ORIGINAL))[0]


@given(st.lists(st.integers(0, 19), min_size=4, max_size=4))
@settings(max_examples=300, deadline=None)
def test_paths_are_allowed_as_in_validation(slots):
    problem = shipped_problem()
    stages = [int(problem.stage_of_slot[slot]) for slot in slots]
    assert obeys_rules(np.array(slots), problem.stage_of_slot) == (path_problem(stages) is None)


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


def check_runs(schedule: Schedule, problem: Problem, state: State) -> None:
    """Legal, even, within memory, and timed like the exact simulation of its orders."""
    in_nodes = state.node_of_slot[state.paths]
    starts = state.start_s.reshape(len(in_nodes), -1)
    assert all(path_problem([int(problem.stage_of_slot[slot]) for slot in path]) is None for path in state.paths)
    assert np.bincount(problem.stage_of_slot[state.paths].ravel()).tolist() == [30] + [18] * 5
    order = order_from_starts(in_nodes, starts, schedule.nodes)
    np.testing.assert_allclose(simulate_order(in_nodes, schedule.costs, *order), starts)
    held = np.zeros(schedule.nodes, dtype=int)
    for task in state.sequence:
        held[state.node[task]] += problem.holds[task]
        assert held.max() <= 3


def test_a_full_node_puts_forwards_off(schedule):
    """All microbatches of an origin in a row: the repair interleaves them again instead of failing."""
    problem, state = started(schedule)
    record(problem, state, True)
    state.trial[:] = np.arange(len(state.sequence))[np.argsort(np.arange(len(state.sequence)) % 9, kind="stable")]
    assert evaluate(problem, state, 0, 1e9) < math.inf
    assert sorted(state.repaired.tolist()) == sorted(state.sequence.tolist())
    state.sequence[:] = state.repaired
    record(problem, state, True)
    check_runs(schedule, problem, state)


def test_scenarios_are_averaged(schedule):
    problem, state = started(schedule, scenarios=4)
    cost, end = record(problem, state, True)
    state.trial[:] = state.sequence
    assert evaluate(problem, state, 0, 1e9) == pytest.approx(cost)
    assert end != pytest.approx(schedule.plan("ca-partial").expected_step_s, abs=1e-6)
    assert evaluate(problem, state, 0, 0.9 * end) == math.inf
