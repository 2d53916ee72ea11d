"""Simulated annealing over stages, paths and order at once, all of its loop compiled."""

from __future__ import annotations

import math

import numpy as np

from skippipe.search.joint_evaluation import evaluate, record
from skippipe.search.joint_moves import KINDS, REFUSED, Undo, propose, revert
from skippipe.search.joint_state import CHECKPOINT_TASKS, Floats, Integers, Problem, State, compiled

SORT_EVERY = 4
"""Accepted changes of a kind after which the sequence is sorted by start again."""


@compiled
def anneal(
    problem: Problem,
    state: State,
    best: State,
    costs: Floats,
    weights: Floats,
    counts: Integers,
    seed: int,
    iterations: int,
    temperature_s: float,
    focus: float,
) -> None:
    """Run iterations at one temperature.

    costs is (current cost, end of the best) in seconds and kept up to date, as are `state`, the decisions of `best`
    (node_of_slot, paths, sequence) and counts, (KINDS, 2): proposals evaluated and accepted of each kind. weights are
    the cumulated probabilities of the kinds.
    """
    np.random.seed(seed)
    undo = Undo(np.zeros(3, dtype=np.int64), np.zeros_like(state.paths[:2]), np.zeros_like(state.paths))
    for _ in range(iterations):
        draw = np.random.random()
        kind = 0
        while kind < KINDS - 1 and weights[kind] < draw:
            kind += 1
        first = propose(problem, state, undo, kind, focus)
        if first == REFUSED:
            continue
        limit = costs[0] - temperature_s * math.log(1.0 - np.random.random())
        counts[kind, 0] += 1
        cost = evaluate(problem, state, first, limit)
        if cost > limit:
            revert(problem, state, undo)
            continue
        counts[kind, 1] += 1
        kept = first // CHECKPOINT_TASKS * CHECKPOINT_TASKS
        state.sequence[kept:] = state.repaired[kept:]
        costs[0], end = record(problem, state, counts[kind, 1] % SORT_EVERY == 0)
        if end < costs[1] - 1e-9:
            costs[1] = end
            best.node_of_slot[:] = state.node_of_slot
            best.paths[:] = state.paths
            best.sequence[:] = state.sequence
