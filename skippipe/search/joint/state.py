"""What the joint search decides and the tables that follow from it: slots, paths, one sequence of all tasks.

A slot is a place in a stage; `node_of_slot` says which node fills it, so that exchanging two nodes' stages exchanges
two entries. Paths are written in slots. `sequence` lists all tasks, by their simulate.task_number, so that every task
comes after those that it waits for; each node runs its tasks in that order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skippipe.errors import UserError
from skippipe.schedule import Costs, Plan
from skippipe.schedule.arrays import Floats, Integers
from skippipe.search.compiled import compiled, task_number

MEAN_END_WEIGHT = 0.3
"""Weight of the mean end of a microbatch beside the end of all; tells apart solutions that end together."""
LARGEST_ERROR = 0.9
"""Most that a sampled link may differ from the given one, relatively."""
CHECKPOINT_TASKS = 32
"""Tasks between two places of the sequence from which a simulation can start again."""


class Problem(NamedTuple):
    """What stays fixed during a search; times in seconds, T tasks."""

    hop_s: Floats
    """(scenarios, nodes, nodes); scenario 0 is the network as given."""
    forward_s: Floats
    """Forward on each node, (nodes,), as are loss_s and backward_s."""
    loss_s: Floats
    backward_s: Floats
    gap_s: float
    """Idle time of a node between two tasks."""
    link_busy_s: Floats
    """How long a message keeps its link from the next one, (nodes, nodes); (0, 0) if messages wait for nothing."""
    uplink_busy_s: Floats
    """How long a message keeps its sender's uplink from the next one, (nodes, nodes)."""
    memory: int
    """Most microbatches that a node holds between forward and backward."""
    pair_sync_s: Floats
    """Sync of each stage whose slowest link is this one, (stages, nodes, nodes); all 0 if only the iteration counts."""
    microbatch: Integers
    """Of each task, (T,)."""
    holds: Integers
    """1 for a forward, -1 for a backward, 0 for a loss, (T,)."""
    stage_of_slot: Integers
    """(nodes,): there are as many slots as nodes."""
    first_slot: Integers
    """First slot of each stage, (stages + 1,)."""
    mean_end_weight: float
    """MEAN_END_WEIGHT."""


class State(NamedTuple):
    """A solution and the tables of its simulation; T tasks, M microbatches, K nodes a path."""

    node_of_slot: Integers
    """(nodes,)."""
    paths: Integers
    """Slots of each path, (M, K)."""
    sequence: Integers
    """All tasks in the order in which they are simulated, (T,)."""
    place: Integers
    """Place of each task in the sequence, (T,)."""
    trial: Integers
    """The sequence of a proposed change, (T,)."""
    repaired: Integers
    """The trial with forwards put off while their node is full, (T,); what a change is accepted with."""
    key_s: Floats
    """Times by which tasks are put into a trial, (T,)."""
    sync_s: Floats
    """Of each stage, (stages,)."""
    node: Integers
    """Node of each task, (T,)."""
    seconds: Floats
    """Duration of each task, (T,)."""
    after_s: Floats
    """Time from a task's end until the next step of its microbatch can start elsewhere, (scenarios, T)."""
    close_s: Floats
    """From a task's start to the end of the sync that it holds up; below 0 for all but backwards, (T,)."""
    rest_s: Floats
    """Least time from a task's start until everything that follows in its microbatch is over, (scenarios, T)."""
    trip_s: Floats
    """Time of each microbatch from its first start to its last end if it never waited, (scenarios, M)."""
    start_s: Floats
    """Start of each task in scenario 0, (T,)."""
    before: Integers
    """Task that the node ran before this one, or -1, (T,)."""
    critical: Integers
    """Tasks of the critical path, as many as the last entry, (T + 1)."""
    saved_ready_s: Floats
    """(scenarios, checkpoints, M)."""
    saved_free_s: Floats
    """(scenarios, checkpoints, nodes)."""
    saved_link_free_s: Floats
    """As simulate.py's link_free, (scenarios, checkpoints, nodes, nodes + 1); empty if messages wait for nothing."""
    saved_held: Integers
    """(checkpoints, nodes)."""
    saved_end_s: Floats
    """(scenarios, checkpoints)."""
    saved_waited_s: Floats
    """Waiting of all microbatches so far, (scenarios, checkpoints)."""


def link_scenarios(hop_s: Floats, error: float, count: int, seed: int) -> Floats:
    """The hops as given, then `count` samples of them, (1 + count, nodes, nodes); just the first for error 0.

    Each link, both ways alike, takes 1 - error to 1 + error of its time, uniformly. UserError for an impossible error.
    """
    if not 0 <= error <= LARGEST_ERROR:
        raise UserError(f"robust must be from 0 to {LARGEST_ERROR}, not {error}")
    if error == 0:
        return hop_s[None].copy()
    draws = np.random.default_rng(seed).uniform(-error, error, (count, *hop_s.shape))
    upper = np.triu(draws, 1)
    return np.concatenate([hop_s[None], hop_s * (1 + upper + upper.transpose(0, 2, 1))])


def make_problem(hop_s: Floats, costs: Costs, memory: int, plan: Plan, pair_sync_s: Floats) -> Problem:
    """Tables of a search from a plan's shape; hop_s is (scenarios, nodes, nodes)."""
    stage_sizes = [len(stage) for stage in plan.stages]
    length = plan.path_length
    return Problem(
        hop_s=np.ascontiguousarray(hop_s),
        forward_s=costs.forward_s,
        loss_s=costs.loss_s,
        backward_s=costs.backward_s,
        gap_s=costs.task_gap_s,
        link_busy_s=np.zeros((0, 0)) if costs.link_busy_s is None else costs.arrays.link_busy_s,
        uplink_busy_s=costs.arrays.uplink_busy_s,
        memory=memory,
        pair_sync_s=pair_sync_s,
        microbatch=np.repeat(np.arange(len(plan.paths)), 2 * length + 1),
        holds=np.tile(np.repeat([1, 0, -1], [length, 1, length]), len(plan.paths)),
        stage_of_slot=np.repeat(np.arange(len(stage_sizes)), stage_sizes),
        first_slot=np.concatenate([[0], np.cumsum(stage_sizes)]),
        mean_end_weight=MEAN_END_WEIGHT,
    )


def make_state(problem: Problem, plan: Plan, start_s: Floats) -> State:
    """The state of a plan whose steps start at start_s, (M, 2K + 1)."""
    node_of_slot = np.array([node for stage in plan.stages for node in stage], dtype=np.int64)
    slot_of_node = np.argsort(node_of_slot)
    paths = slot_of_node[plan.paths_array]
    scenarios, nodes = problem.hop_s.shape[:2]
    microbatches, tasks = paths.shape[0], start_s.size
    checkpoints = tasks // CHECKPOINT_TASKS + 1
    queueing = len(problem.link_busy_s)
    sequence = np.argsort(start_s.ravel(), kind="stable").astype(np.int64)
    state = State(
        node_of_slot=node_of_slot,
        paths=paths,
        sequence=sequence,
        place=np.argsort(sequence).astype(np.int64),
        trial=sequence.copy(),
        repaired=sequence.copy(),
        key_s=np.zeros(tasks),
        sync_s=np.zeros(len(plan.stages)),
        node=np.zeros(tasks, dtype=np.int64),
        seconds=np.zeros(tasks),
        after_s=np.zeros((scenarios, tasks)),
        close_s=np.zeros(tasks),
        rest_s=np.zeros((scenarios, tasks)),
        trip_s=np.zeros((scenarios, microbatches)),
        start_s=np.zeros(tasks),
        before=np.zeros(tasks, dtype=np.int64),
        critical=np.zeros(tasks + 1, dtype=np.int64),
        saved_ready_s=np.zeros((scenarios, checkpoints, microbatches)),
        saved_free_s=np.zeros((scenarios, checkpoints, nodes)),
        saved_link_free_s=np.zeros((scenarios, checkpoints, queueing, queueing + 1)),
        saved_held=np.zeros((checkpoints, nodes), dtype=np.int64),
        saved_end_s=np.zeros((scenarios, checkpoints)),
        saved_waited_s=np.zeros((scenarios, checkpoints)),
    )
    refresh_all(problem, state)
    return state


@compiled
def refresh_all(problem: Problem, state: State) -> None:
    """Compute the tables of all microbatches from nodes and paths."""
    for stage in range(state.sync_s.shape[0]):
        state.sync_s[stage] = stage_sync(problem, state, stage)
    for m in range(state.paths.shape[0]):
        refresh(problem, state, m)


@compiled
def stage_sync(problem: Problem, state: State, stage: int) -> float:
    """Seconds of a stage's sync with the nodes that now fill its slots."""
    first, last = problem.first_slot[stage], problem.first_slot[stage + 1]
    longest = 0.0
    for a in range(first, last):
        for b in range(a + 1, last):
            longest = max(longest, problem.pair_sync_s[stage, state.node_of_slot[a], state.node_of_slot[b]])
    return float(longest)


@compiled
def refresh(problem: Problem, state: State, m: int) -> None:
    """Compute the tables of one microbatch from its path."""
    length = state.paths.shape[1]
    base = task_number(m, 0, length)
    for k in range(length):
        node = state.node_of_slot[state.paths[m, k]]
        back = base + 2 * length - k
        state.node[base + k] = node
        state.node[back] = node
        state.seconds[base + k] = problem.forward_s[node]
        state.seconds[back] = problem.backward_s[node]
        state.close_s[base + k] = -1e300
        state.close_s[back] = problem.backward_s[node] + state.sync_s[problem.stage_of_slot[state.paths[m, k]]]
    origin = state.node[base]
    state.node[base + length] = origin
    state.seconds[base + length] = problem.loss_s[origin]
    state.close_s[base + length] = -1e300
    final = base + 2 * length
    for scenario in range(problem.hop_s.shape[0]):
        hop_s = problem.hop_s[scenario]
        for task in range(base, final):
            state.after_s[scenario, task] = hop_s[state.node[task], state.node[task + 1]]
        state.after_s[scenario, final] = 0.0
        rest, trip = 0.0, 0.0
        for task in range(final, base - 1, -1):
            lasts = state.seconds[task] + state.after_s[scenario, task]
            rest = max(state.close_s[task], lasts + rest)
            state.rest_s[scenario, task] = rest
            trip += lasts
        state.trip_s[scenario, m] = trip
