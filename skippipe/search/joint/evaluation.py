"""Simulation of a state: one pass over its sequence, from a checkpoint, given up once it can't be accepted any more."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from skippipe.schedule.arrays import Floats, Integers
from skippipe.search.compiled import compiled, split_task
from skippipe.search.joint.state import CHECKPOINT_TASKS, Problem, State


@compiled
def evaluate(problem: Problem, state: State, first: int, limit_s: float) -> float:
    """Cost of the state with its trial sequence in seconds; infinite above the limit, or if nodes wait for ever.

    Writes the repaired sequence, unless the cost is infinite. Places before `first` are as they were when the state was
    last recorded.
    """
    scenarios = state.after_s.shape[0]
    checkpoint = first // CHECKPOINT_TASKS
    total = 0.0
    for scenario in range(scenarios):
        run = resume(problem, state, scenario, checkpoint)
        bound_s = limit_s * scenarios - total
        if scenario == 0:
            cost = repair(problem, state, run, checkpoint * CHECKPOINT_TASKS, bound_s)
        else:
            cost = follow(problem, state, run, checkpoint * CHECKPOINT_TASKS, bound_s)
        if cost == math.inf:
            return math.inf
        total += cost
    return float(total / scenarios)


class Run(NamedTuple):
    """A simulation under way in one scenario, changed in place; M microbatches."""

    scenario: int
    ready_s: Floats
    """When the next task of each microbatch can start, (M,)."""
    free_s: Floats
    """When each node is idle again, (nodes,)."""
    link_free_s: Floats
    """When each link and uplink is free again, as State.saved_link_free_s."""
    held: Integers
    """Microbatches between forward and backward on each node, (nodes,)."""
    totals: Floats
    """Least end of all that is known so far, and the sum of all trips and of all waiting so far, in seconds, (2,)."""


@compiled
def resume(problem: Problem, state: State, scenario: int, checkpoint: int) -> Run:
    """The simulation as it was at a checkpoint."""
    totals = np.empty(2)
    totals[0] = state.saved_end_s[scenario, checkpoint]
    totals[1] = state.saved_waited_s[scenario, checkpoint] + state.trip_s[scenario].sum()
    return Run(
        scenario,
        state.saved_ready_s[scenario, checkpoint].copy(),
        state.saved_free_s[scenario, checkpoint].copy(),
        state.saved_link_free_s[scenario, checkpoint].copy(),
        state.saved_held[checkpoint].copy(),
        totals,
    )


@compiled
def run_task(problem: Problem, state: State, run: Run, task: int) -> float:
    """Run the next task; returns the least cost that the whole can still have, in seconds.

    All trips and the waiting so far bound the mean end; the time from this task on, without waiting, the end of all.
    """
    m, node = problem.microbatch[task], state.node[task]
    ready, free = run.ready_s[m], run.free_s[node]
    start = max(ready, free)
    run.totals[0] = max(run.totals[0], start + state.rest_s[run.scenario, task])
    finish = start + state.seconds[task]
    sent = leave(problem, state, task, finish, run.link_free_s)
    run.totals[1] += start - ready + sent - finish
    run.free_s[node] = finish + problem.gap_s
    run.ready_s[m] = sent + state.after_s[run.scenario, task]
    return float(run.totals[0] + problem.mean_end_weight * run.totals[1] / len(run.ready_s))


@compiled
def leave(problem: Problem, state: State, task: int, finish: float, link_free_s: Floats) -> float:
    """When the message of a task that has finished leaves its node; keeps link and uplink (as in simulate.py)."""
    nodes = link_free_s.shape[0]
    if nodes == 0 or task + 1 == state.node.shape[0] or problem.microbatch[task + 1] != problem.microbatch[task]:
        return finish
    node, target = state.node[task], state.node[task + 1]
    sent = max(finish, link_free_s[node, nodes])
    link_free_s[node, nodes] = sent + problem.uplink_busy_s[node, target]
    sent = max(sent, link_free_s[node, target])
    link_free_s[node, target] = sent + problem.link_busy_s[node, target]
    return float(sent)


@compiled
def repair(problem: Problem, state: State, run: Run, place: int, bound_s: float) -> float:
    """Cost of the trial sequence from a place on with every forward put off until its node has room; infinite above.

    What a node holds depends on the order alone, not on times, so one repair serves all scenarios.
    """
    cost = 0.0
    for at in range(place, state.trial.shape[0]):
        task = state.trial[at]
        node = state.node[task]
        run.held[node] += problem.holds[task]
        if run.held[node] > problem.memory:
            run.held[node] -= 1
            return put_off(problem, state, run, at, bound_s)
        state.repaired[at] = task
        cost = run_task(problem, state, run, task)
        if cost > bound_s:
            return math.inf
    return cost


@compiled
def put_off(problem: Problem, state: State, run: Run, place: int, bound_s: float) -> float:
    """Repair from a place whose forward finds its node full; what is put off runs once a backward makes room."""
    tasks, microbatches, nodes = state.trial.shape[0], state.paths.shape[0], run.held.shape[0]
    due = np.zeros(microbatches, dtype=np.int64)
    pending, following = np.full(microbatches, -1), np.full(microbatches, -1)
    head, tail = np.full(nodes, -1), np.full(nodes, -1)
    agenda = np.empty(microbatches, dtype=np.int64)
    done, cost = place, 0.0
    for i in range(place, tasks):
        m = problem.microbatch[state.trial[i]]
        due[m] += 1
        if pending[m] >= 0:
            continue
        pending[m] = state.trial[i]
        agenda[0], depth = m, 1
        while depth > 0:
            depth -= 1
            m = agenda[depth]
            task = pending[m]
            pending[m] = -1
            while due[m] > 0:
                node = state.node[task]
                if problem.holds[task] == 1 and run.held[node] == problem.memory:
                    pending[m], following[m] = task, -1
                    if head[node] < 0:
                        head[node] = m
                    else:
                        following[tail[node]] = m
                    tail[node] = m
                    break
                run.held[node] += problem.holds[task]
                state.repaired[done] = task
                cost = run_task(problem, state, run, task)
                if cost > bound_s:
                    return math.inf
                done += 1
                due[m] -= 1
                if problem.holds[task] == -1 and head[node] >= 0:
                    agenda[depth] = head[node]
                    depth += 1
                    head[node] = following[head[node]]
                task += 1
    return cost if done == tasks else math.inf


@compiled
def follow(problem: Problem, state: State, run: Run, place: int, bound_s: float) -> float:
    """Cost of the repaired sequence from a place on, infinite above the bound."""
    cost = 0.0
    for at in range(place, state.repaired.shape[0]):
        cost = run_task(problem, state, run, state.repaired[at])
        if cost > bound_s:
            return math.inf
    return cost


@compiled
def record(problem: Problem, state: State, sort: bool) -> tuple[float, float]:
    """Simulate the whole state and record starts and checkpoints; `sort` first sorts the sequence by start.

    Returns the cost and the end of all in seconds, each the mean over the scenarios.
    """
    scenarios = state.after_s.shape[0]
    cost, end = 0.0, 0.0
    if sort:
        simulate_scenario(problem, state, 0, False)
        sort_by(state.sequence, state.start_s)
    for scenario in range(scenarios):
        scenario_end, mean = simulate_scenario(problem, state, scenario, True)
        end += scenario_end / scenarios
        cost += (scenario_end + problem.mean_end_weight * mean) / scenarios
    mark_critical(state, problem.gap_s)
    return cost, end


@compiled
def simulate_scenario(problem: Problem, state: State, scenario: int, save: bool) -> tuple[float, float]:
    """End of all and mean end of a microbatch in one scenario; `save` writes checkpoints, scenario 0 the starts."""
    tasks = state.after_s.shape[1]
    microbatches, nodes = state.paths.shape[0], state.node_of_slot.shape[0]
    ready, free, held = np.zeros(microbatches), np.zeros(nodes), np.zeros(nodes, dtype=np.int64)
    newest = np.full(nodes, -1)
    link_free_s = np.zeros(state.saved_link_free_s.shape[2:])
    end, waited = 0.0, 0.0
    for place in range(tasks):
        if save and place % CHECKPOINT_TASKS == 0:
            checkpoint = place // CHECKPOINT_TASKS
            state.saved_ready_s[scenario, checkpoint] = ready
            state.saved_free_s[scenario, checkpoint] = free
            state.saved_link_free_s[scenario, checkpoint] = link_free_s
            state.saved_held[checkpoint] = held
            state.saved_end_s[scenario, checkpoint] = end
            state.saved_waited_s[scenario, checkpoint] = waited
        task = state.sequence[place]
        state.place[task] = place
        m, node = problem.microbatch[task], state.node[task]
        start = max(ready[m], free[node])
        finish = start + state.seconds[task]
        sent = leave(problem, state, task, finish, link_free_s)
        waited += start - ready[m] + sent - finish
        held[node] += problem.holds[task]
        end = max(end, start + state.close_s[task])
        free[node] = finish + problem.gap_s
        ready[m] = sent + state.after_s[scenario, task]
        if scenario == 0:
            state.start_s[task] = start
            state.before[task] = newest[node]
            newest[node] = task
    return end, ready.mean()


@compiled
def sort_by(sequence: Integers, key_s: Floats) -> None:
    """Insertion sort of a nearly sorted sequence by the keys of its tasks; stable."""
    for place in range(1, sequence.shape[0]):
        task = sequence[place]
        key = key_s[task]
        gap = place
        while gap > 0 and key_s[sequence[gap - 1]] > key:
            sequence[gap] = sequence[gap - 1]
            gap -= 1
        sequence[gap] = task


@compiled
def mark_critical(state: State, gap_s: float) -> None:
    """Write the tasks that nothing separates on the way to the end of scenario 0, last first."""
    length, tasks = state.paths.shape[1], state.start_s.shape[0]
    last, end = 0, -1.0
    for task in range(tasks):
        if state.start_s[task] + state.close_s[task] > end:
            last, end = task, state.start_s[task] + state.close_s[task]
    count = 0
    while last >= 0:
        state.critical[count] = last
        count += 1
        before = state.before[last]
        waited = before >= 0 and (state.start_s[before] + state.seconds[before] + gap_s >= state.start_s[last] - 1e-9)
        if waited:
            last = before
        elif split_task(last, length)[1] > 0:
            last = last - 1
        else:
            last = -1
    state.critical[tasks] = count
