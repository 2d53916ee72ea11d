"""Moves of the joint search: small random changes of a state, each undone exactly."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skippipe.schedule.arrays import Flags, Integers
from skippipe.search.compiled import compiled, split_task, task_number
from skippipe.search.constraints import obeys_rules
from skippipe.search.joint.state import Problem, State, refresh, stage_sync

ORDER, EXCHANGE, RELOCATE, REORDER, CROSS, NODES = range(6)
KINDS = 6
REFUSED = -1
RETIMED = 0.6
"""Part of the changed paths whose tasks are put into the sequence anew."""
FARTHEST_SHIFT = 3
"""Most tasks of a node that an order move passes over."""


class Undo(NamedTuple):
    """What a move changed."""

    numbers: Integers
    """Kind of move, then its two slots or microbatches."""
    paths: Integers
    """Paths of the two microbatches before the move, (2, K)."""
    all_paths: Integers
    """Paths of all microbatches before nodes were exchanged, (M, K)."""
    touched: Flags
    """Microbatches whose tables an exchange of nodes changed, (M,)."""


@compiled
def new_undo(state: State) -> Undo:
    """Room for the changes of a state."""
    microbatches, length = state.paths.shape
    return Undo(
        np.zeros(3, dtype=np.int64),
        np.zeros((2, length), dtype=np.int64),
        np.zeros((microbatches, length), dtype=np.int64),
        np.zeros(microbatches, dtype=np.bool_),
    )


@compiled
def pick(count: int) -> int:
    """A random number from 0 to count - 1."""
    return int(np.random.random() * count)


@compiled
def propose(problem: Problem, state: State, undo: Undo, kind: int, focus: float) -> int:
    """Change nodes or paths and write the trial sequence; with probability `focus` at a task of the critical path.

    Returns the first place of the sequence that something changes at, or REFUSED if nothing was changed.
    """
    length, tasks = state.paths.shape[1], state.sequence.shape[0]
    task = state.critical[pick(int(state.critical[tasks]))] if np.random.random() < focus else pick(tasks)
    undo.numbers[0] = kind
    state.trial[:] = state.sequence
    if kind == ORDER:
        return move_order(state, task)
    m, step = split_task(task, length)
    k = 0 if step == length else min(step, 2 * length - step)
    if kind == NODES:
        return exchange_nodes(problem, state, undo, state.paths[m, k])
    if kind == EXCHANGE:
        return exchange_visits(problem, state, undo, m, k)
    if kind == RELOCATE:
        return relocate(problem, state, undo, m, k)
    if kind == REORDER:
        return reorder(problem, state, undo, m, k)
    return cross(problem, state, undo, m, k)


@compiled
def revert(problem: Problem, state: State, undo: Undo) -> None:
    """Undo the last proposed change."""
    kind, a, b = undo.numbers[0], undo.numbers[1], undo.numbers[2]
    if kind == NODES:
        state.paths[:] = undo.all_paths
        swap_slots(state, a, b)
        for slot in (a, b):
            stage = problem.stage_of_slot[slot]
            state.sync_s[stage] = stage_sync(problem, state, stage)
        refresh_touched(problem, state, undo)
    elif kind != ORDER:
        state.paths[a] = undo.paths[0]
        state.paths[b] = undo.paths[1]
        refresh(problem, state, a)
        if b != a:
            refresh(problem, state, b)


@compiled
def move_order(state: State, task: int) -> int:
    """Let a task run before one to three others of its node, or the earliest of them after it."""
    length = state.paths.shape[1]
    other = state.before[task]
    for _ in range(pick(FARTHEST_SHIFT)):
        if other >= 0 and state.before[other] >= 0:
            other = state.before[other]
    microbatch, step = split_task(task, length)
    other_microbatch, other_step = split_task(other, length)
    if other < 0 or other_microbatch == microbatch:
        return REFUSED
    early, late = state.place[other], state.place[task]
    if step == 0 or state.place[task - 1] < early:
        state.trial[early + 1 : late + 1] = state.sequence[early:late]
        state.trial[early] = task
    elif other_step == 2 * length or state.place[other + 1] > late:
        state.trial[early:late] = state.sequence[early + 1 : late + 1]
        state.trial[late] = other
    else:
        return REFUSED
    return int(early)


@compiled
def remember(state: State, undo: Undo, a: int, b: int) -> None:
    """Keep the paths of two microbatches for revert."""
    undo.numbers[1], undo.numbers[2] = a, b
    undo.paths[0] = state.paths[a]
    undo.paths[1] = state.paths[b]


@compiled
def accept_paths(problem: Problem, state: State, undo: Undo, first_k: int) -> int:
    """Check the changed paths of the two remembered microbatches; put them back if they break a rule."""
    a, b = undo.numbers[1], undo.numbers[2]
    stage_of = problem.stage_of_slot
    if not obeys_rules(state.paths[a], stage_of) or (a != b and not obeys_rules(state.paths[b], stage_of)):
        state.paths[a] = undo.paths[0]
        state.paths[b] = undo.paths[1]
        return REFUSED
    length, step = state.paths.shape[1], max(0, first_k - 1)
    first = min(state.place[task_number(a, step, length)], state.place[task_number(b, step, length)])
    refresh(problem, state, a)
    if a != b:
        refresh(problem, state, b)
    if np.random.random() < RETIMED:
        first = min(first, retime(problem, state, a, b))
    return int(first)


@compiled
def retime(problem: Problem, state: State, a: int, b: int) -> int:
    """Put the tasks of two microbatches (or one) where they would run if they never waited; returns the first place."""
    length = state.paths.shape[1]
    next_a, end_a = task_number(a, 0, length), task_number(a + 1, 0, length)
    next_b, end_b = task_number(b, 0, length), task_number(b + 1, 0, length)
    earliest, tasks = min(state.place[next_a], state.place[next_b]), state.sequence.shape[0]
    for begin, end in ((next_a, end_a), (next_b, end_b)):
        key = state.start_s[begin]
        for task in range(begin, end):
            state.key_s[task] = key
            key += state.seconds[task] + state.after_s[0, task]
    if a == b:
        next_b = end_b
    done = earliest
    for place in range(earliest, tasks + 1):
        moment = np.inf
        if place < tasks:
            task = state.sequence[place]
            if problem.microbatch[task] == a or problem.microbatch[task] == b:
                continue
            moment = state.start_s[task]
        while True:
            key_a = state.key_s[next_a] if next_a < end_a else np.inf
            key_b = state.key_s[next_b] if next_b < end_b else np.inf
            if min(key_a, key_b) >= moment:
                break
            if key_a <= key_b:
                state.trial[done] = next_a
                next_a += 1
            else:
                state.trial[done] = next_b
                next_b += 1
            done += 1
        if place < tasks:
            state.trial[done] = task
            done += 1
    first = earliest
    while first < tasks and state.trial[first] == state.sequence[first]:
        first += 1
    return int(first)


@compiled
def exchange_visits(problem: Problem, state: State, undo: Undo, m: int, k: int) -> int:
    """Exchange the nodes of two visits, of one stage or of two; every stage keeps its number of visits."""
    microbatches, length = state.paths.shape
    slot = state.paths[m, k]
    across = np.random.random() < 0.3
    for _ in range(12):
        other, j = pick(microbatches), pick(length)
        found = state.paths[other, j]
        if found == slot or other == m:
            continue
        if across or problem.stage_of_slot[found] == problem.stage_of_slot[slot]:
            remember(state, undo, m, other)
            state.paths[m, k] = found
            state.paths[other, j] = slot
            return accept_paths(problem, state, undo, min(k, j))
    return REFUSED


@compiled
def relocate(problem: Problem, state: State, undo: Undo, m: int, k: int) -> int:
    """Move a visit to another node of its stage; origins keep their number of microbatches."""
    stage = problem.stage_of_slot[state.paths[m, k]]
    first, count = problem.first_slot[stage], problem.first_slot[stage + 1] - problem.first_slot[stage]
    if k == 0 or count < 2:
        return REFUSED
    slot = first + pick(count)
    if slot == state.paths[m, k]:
        return REFUSED
    remember(state, undo, m, m)
    state.paths[m, k] = slot
    return accept_paths(problem, state, undo, k)


@compiled
def reorder(problem: Problem, state: State, undo: Undo, m: int, k: int) -> int:
    """Exchange two visits of one path."""
    j = 1 + pick(state.paths.shape[1] - 1)
    if k == 0 or j == k:
        return REFUSED
    remember(state, undo, m, m)
    state.paths[m, k], state.paths[m, j] = state.paths[m, j], state.paths[m, k]
    return accept_paths(problem, state, undo, min(k, j))


@compiled
def cross(problem: Problem, state: State, undo: Undo, m: int, k: int) -> int:
    """Exchange the parts of two paths from one place on, or just up to another."""
    microbatches, length = state.paths.shape
    other = pick(microbatches)
    k = max(1, k)
    if other == m:
        return REFUSED
    stop = length if np.random.random() < 0.6 else k + pick(length - k) + 1
    remember(state, undo, m, other)
    for j in range(k, stop):
        state.paths[m, j], state.paths[other, j] = state.paths[other, j], state.paths[m, j]
    return accept_paths(problem, state, undo, k)


@compiled
def exchange_nodes(problem: Problem, state: State, undo: Undo, slot: int) -> int:
    """Exchange the nodes of two slots, their stages or their roles in one, and lead paths past them if shorter."""
    other = pick(state.node_of_slot.shape[0])
    if other == slot:
        return REFUSED
    undo.numbers[1], undo.numbers[2] = slot, other
    undo.all_paths[:] = state.paths
    swap_slots(state, slot, other)
    for changed in (slot, other):
        if problem.stage_of_slot[changed] > 0:
            reroute(problem, state, changed)
    touch(problem, state, undo, slot, other)
    refresh_touched(problem, state, undo)
    return 0


@compiled
def touch(problem: Problem, state: State, undo: Undo, a: int, b: int) -> None:
    """Work out the syncs of the stages of two exchanged slots, and mark the microbatches that the exchange touches."""
    undo.touched[:] = False
    stages = np.array([problem.stage_of_slot[a], problem.stage_of_slot[b]])
    resynced = np.zeros(2, dtype=np.bool_)
    for i in range(2):
        sync_s = stage_sync(problem, state, stages[i])
        resynced[i] = sync_s != state.sync_s[stages[i]]
        state.sync_s[stages[i]] = sync_s
    for m in range(state.paths.shape[0]):
        for k in range(state.paths.shape[1]):
            slot, before = state.paths[m, k], undo.all_paths[m, k]
            stage = problem.stage_of_slot[slot]
            changed = slot != before or slot in (a, b)
            if changed or (resynced[0] and stage == stages[0]) or (resynced[1] and stage == stages[1]):
                undo.touched[m] = True
                break


@compiled
def refresh_touched(problem: Problem, state: State, undo: Undo) -> None:
    """Compute the tables of the marked microbatches."""
    for m in range(state.paths.shape[0]):
        if undo.touched[m]:
            refresh(problem, state, m)


@compiled
def swap_slots(state: State, a: int, b: int) -> None:
    """Exchange the nodes of two slots."""
    state.node_of_slot[a], state.node_of_slot[b] = state.node_of_slot[b], state.node_of_slot[a]


@compiled
def reroute(problem: Problem, state: State, slot: int) -> None:
    """Move each visit to a slot to a random one of its stage if the hops around it then take less time."""
    stage = problem.stage_of_slot[slot]
    first, count = problem.first_slot[stage], problem.first_slot[stage + 1] - problem.first_slot[stage]
    microbatches, length = state.paths.shape
    for m in range(microbatches):
        for k in range(1, length):
            if state.paths[m, k] == slot:
                other = first + pick(count)
                if hops_around(problem, state, m, k, other) < hops_around(problem, state, m, k, slot):
                    state.paths[m, k] = other


@compiled
def hops_around(problem: Problem, state: State, m: int, k: int, slot: int) -> float:
    """Seconds of the hops, forth and back, beside place k of a path if it were this slot."""
    hop_s, node = problem.hop_s[0], state.node_of_slot[slot]
    before = state.node_of_slot[state.paths[m, k - 1]]
    after = state.node_of_slot[state.paths[m, (k + 1) % state.paths.shape[1]]]
    return float(hop_s[before, node] + hop_s[node, after] + hop_s[after, node] + hop_s[node, before])
