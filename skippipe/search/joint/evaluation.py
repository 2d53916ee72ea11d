"""Simulation of a state: one pass over its sequence, from a checkpoint, given up once it can't be accepted any more."""

from __future__ import annotations

import math

import numpy as np

from skippipe.schedule.arrays import Floats, Integers
from skippipe.search.compiled import compiled, split_task
from skippipe.search.joint.state import CHECKPOINT_TASKS, Problem, State


@compiled
def evaluate(problem: Problem, state: State, first: int, limit_s: float) -> float:
    """Cost of the state with its trial sequence in seconds; infinite above the limit.

    Writes the repaired sequence. Places before `first` are as they were when the state was last recorded.
    """
    scenarios = state.after_s.shape[0]
    checkpoint = first // CHECKPOINT_TASKS
    if not repair(problem, state, checkpoint):
        return math.inf
    total = 0.0
    for scenario in range(scenarios):
        total += follow(problem, state, scenario, checkpoint, limit_s * scenarios - total)
    return float(total / scenarios)


@compiled
def repair(problem: Problem, state: State, checkpoint: int) -> bool:
    """Write the trial sequence with every forward put off until its node has room; False if nodes wait for ever.

    What a node holds depends on the order alone, not on times, so one repair serves all scenarios.
    """
    tasks = state.trial.shape[0]
    first = checkpoint * CHECKPOINT_TASKS
    held = state.saved_held[checkpoint].copy()
    place = first
    while place < tasks:
        task = state.trial[place]
        node = state.node[task]
        held[node] += problem.holds[task]
        if held[node] > problem.memory:
            held[node] -= 1
            return put_off(problem, state, held, place)
        state.repaired[place] = task
        place += 1
    return True


@compiled
def put_off(problem: Problem, state: State, held: Integers, place: int) -> bool:
    """Repair from a place whose forward finds its node full; what is put off runs once a backward makes room."""
    tasks, microbatches, nodes = state.trial.shape[0], state.paths.shape[0], held.shape[0]
    due = np.zeros(microbatches, dtype=np.int64)
    pending = np.full(microbatches, -1)
    following = np.full(microbatches, -1)
    head, tail = np.full(nodes, -1), np.full(nodes, -1)
    agenda = np.empty(microbatches, dtype=np.int64)
    done = place
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
                if problem.holds[task] == 1 and held[node] == problem.memory:
                    pending[m], following[m] = task, -1
                    if head[node] < 0:
                        head[node] = m
                    else:
                        following[tail[node]] = m
                    tail[node] = m
                    break
                held[node] += problem.holds[task]
                state.repaired[done] = task
                done += 1
                due[m] -= 1
                if problem.holds[task] == -1 and head[node] >= 0:
                    agenda[depth] = head[node]
                    depth += 1
                    head[node] = following[head[node]]
                task += 1
    return bool(done == tasks)


@compiled
def follow(problem: Problem, state: State, scenario: int, checkpoint: int, bound_s: float) -> float:
    """Cost of one scenario with the repaired sequence, given up once some microbatch must end above the bound."""
    ready = state.saved_ready_s[scenario, checkpoint].copy()
    free = state.saved_free_s[scenario, checkpoint].copy()
    end = state.saved_end_s[scenario, checkpoint]
    rest_s, after_s = state.rest_s[scenario], state.after_s[scenario]
    for place in range(checkpoint * CHECKPOINT_TASKS, state.repaired.shape[0]):
        task = state.repaired[place]
        m, node = problem.microbatch[task], state.node[task]
        start = max(ready[m], free[node])
        if start + rest_s[task] > bound_s:
            return math.inf
        state.key_s[task] = ready[m]
        end = max(end, start + state.close_s[task])
        finish = start + state.seconds[task]
        free[node] = finish + problem.gap_s
        ready[m] = finish + after_s[task]
    return float(end + problem.mean_end_weight * ready.mean())


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
    end = 0.0
    for place in range(tasks):
        if save and place % CHECKPOINT_TASKS == 0:
            checkpoint = place // CHECKPOINT_TASKS
            state.saved_ready_s[scenario, checkpoint] = ready
            state.saved_free_s[scenario, checkpoint] = free
            state.saved_held[checkpoint] = held
            state.saved_end_s[scenario, checkpoint] = end
        task = state.sequence[place]
        state.place[task] = place
        m, node = problem.microbatch[task], state.node[task]
        start = max(ready[m], free[node])
        held[node] += problem.holds[task]
        end = max(end, start + state.close_s[task])
        free[node] = start + state.seconds[task] + problem.gap_s
        ready[m] = start + state.seconds[task] + state.after_s[scenario, task]
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
