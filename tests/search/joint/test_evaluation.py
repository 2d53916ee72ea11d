"""The simulation of the joint search against the exact one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from skippipe.search.joint.evaluation import evaluate, record
from tests.search.joint.states import check_runs, started


def test_the_warm_start_costs_what_its_plan_says(schedule):
    problem, state = started(schedule)
    assert record(problem, state, True)[1] == pytest.approx(schedule.plan("ca-partial").expected_step_s)


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
