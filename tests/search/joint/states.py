"""States of the joint search for its tests, and what must hold of every one."""

from __future__ import annotations

import numpy as np

from skippipe.schedule import Schedule
from skippipe.schedule.simulate import order_from_starts, simulate_order
from skippipe.schedule.validation import path_problem
from skippipe.search.joint.state import Problem, State, link_scenarios, make_problem, make_state
from skippipe.search.problem import Instance


def started(schedule: Schedule, scenarios: int = 0) -> tuple[Problem, State]:
    """The state of the schedule's ca-partial, with so many sampled networks beside the given one."""
    plan, costs = schedule.plan("ca-partial"), schedule.costs
    hop_s = link_scenarios(costs.hop_s, 0.1 if scenarios else 0.0, scenarios, 0)
    problem = make_problem(hop_s, costs, 3, plan, Instance.from_schedule(schedule, "ca-partial").pair_sync_s)
    return problem, make_state(problem, plan, schedule.plan("ca-partial").starts(schedule.costs))


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
