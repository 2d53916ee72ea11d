"""Paths of slots, and networks that differ from the given one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skippipe.errors import UserError
from skippipe.schedule import Schedule
from skippipe.schedule.validation import path_problem
from skippipe.search.constraints import obeys_rules
from skippipe.search.joint.state import LARGEST_ERROR, Problem, link_scenarios
from tests.search.joint.states import started


@pytest.fixture(scope="module")
def problem(schedule: Schedule) -> Problem:
    return started(schedule)[0]


@given(st.lists(st.integers(0, 19), min_size=4, max_size=4))
@settings(max_examples=300, deadline=None)
def test_paths_of_slots_are_allowed_as_in_validation(problem, slots):
    stages = [int(problem.stage_of_slot[slot]) for slot in slots]
    assert obeys_rules(np.array(slots), problem.stage_of_slot) == (path_problem(stages) is None)


def test_scenarios_begin_with_the_network_as_given():
    hop_s = np.random.default_rng(0).uniform(0.1, 3.0, (4, 4))
    scenarios = link_scenarios(hop_s, 0.3, 5, seed=1)
    assert scenarios.shape == (6, 4, 4)
    np.testing.assert_array_equal(scenarios[0], hop_s)
    error = scenarios[1:] / hop_s - 1
    assert 0.1 < np.abs(error).max() <= 0.3
    np.testing.assert_allclose(error, error.transpose(0, 2, 1))
    assert link_scenarios(hop_s, 0.0, 5, seed=1).shape == (1, 4, 4)
    with pytest.raises(UserError, match="robust"):
        link_scenarios(hop_s, LARGEST_ERROR + 0.01, 5, seed=1)
