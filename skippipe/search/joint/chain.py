"""One annealing chain of the joint search: its state, its best state and its budget."""

from __future__ import annotations

import math
import threading
import time
from typing import NamedTuple

import numpy as np

from skippipe.schedule import Plan
from skippipe.schedule.arrays import Floats, Integers
from skippipe.search.compiled import compiled
from skippipe.search.joint.evaluation import evaluate, record
from skippipe.search.joint.moves import KINDS, REFUSED, new_undo, propose, revert
from skippipe.search.joint.state import CHECKPOINT_TASKS, Problem, State, make_state, refresh_all

SORT_EVERY = 4
"""Accepted changes of a kind after which the sequence is sorted by start again."""
CHUNK_TASKS = 2_000_000
"""Simulated tasks, about, between two looks at the clock."""
MOVE_PARTS = (0.28, 0.23, 0.17, 0.11, 0.12, 0.09)
"""How often the kinds of moves are tried, relatively, in the order in which moves.py numbers them."""
FOCUS = 0.6
"""Part of the moves that touch the critical path."""


class Proposals(NamedTuple):
    """Which changes are proposed how often."""

    weights: Floats
    """Cumulated probabilities of the kinds of moves, (KINDS,)."""
    focus: float
    """Part of the moves that touch the critical path."""


class Walk(NamedTuple):
    """Where a chain is; changed in place."""

    state: State
    best: State
    """The best solution so far; only what it decides (node_of_slot, paths, sequence) is kept up to date."""
    costs: Floats
    """Cost of the state and end of the best, in seconds, (2,)."""
    counts: Integers
    """Proposals evaluated and accepted of each kind, (KINDS, 2)."""


class Chain:
    """A walk through solutions; not to be run by two threads at once."""

    def __init__(
        self,
        problem: Problem,
        plan: Plan,
        start_s: Floats,
        seed: int,
        move_parts: tuple[float, ...] = MOVE_PARTS,
        focus: float = FOCUS,
    ) -> None:
        """Start from a plan whose steps start at start_s, (M, 2K + 1)."""
        self.problem, self.seed = problem, seed
        state, best = make_state(problem, plan, start_s), make_state(problem, plan, start_s)
        costs: Floats = np.array(record(problem, state, True))
        self.walk = Walk(state, best, costs, np.zeros((KINDS, 2), dtype=np.int64))
        self.proposals = Proposals(np.cumsum(move_parts) / sum(move_parts), focus)
        self.proposed = 0

    @property
    def best_s(self) -> float:
        """Objective of the best solution so far in seconds."""
        return float(self.walk.costs[1])

    @property
    def simulations(self) -> int:
        """Proposals that were simulated so far."""
        return int(self.walk.counts[:, 0].sum())

    def copy_from(self, other: Chain) -> None:
        """Go on from the best solution of another chain, or of this one."""
        state, best = self.walk.state, self.walk.best
        for name in ("node_of_slot", "paths", "sequence"):
            getattr(state, name)[:] = getattr(other.walk.best, name)
            getattr(best, name)[:] = getattr(other.walk.best, name)
        refresh_all(self.problem, state)
        self.walk.costs[:] = record(self.problem, state, True)

    def compile(self) -> None:
        """Compile the kernels, or read the compiled ones, without a move: a minute at the first use after a change."""
        anneal(self.problem, self.walk, self.proposals, 0, 0, 1.0)

    def run(self, hot_s: float, cold_s: float, iterations: int | None, until: float, stop: threading.Event) -> None:
        """Anneal from hot_s to cold_s for a number of proposals, or at most until the monotonic clock says `until`."""
        began, done = time.monotonic(), 0
        most = max(100, CHUNK_TASKS // len(self.walk.state.sequence))
        while not stop.is_set():
            spent = (time.monotonic() - began) / max(until - began, 1e-9)
            if iterations is not None:
                spent = max(spent, done / iterations if iterations else 1.0)
            if spent >= 1:
                return
            chunk = most if iterations is None else min(most, iterations - done)
            temperature_s = hot_s * (cold_s / hot_s) ** spent
            seed = (self.seed * 1_000_003 + self.proposed) % 2**32
            anneal(self.problem, self.walk, self.proposals, seed, chunk, temperature_s)
            done += chunk
            self.proposed += chunk

    def solution(self) -> tuple[Integers, Integers, Floats]:
        """Nodes of the slots, paths in slots (M, K), and starts of all steps (M, 2K + 1) of the best solution."""
        best = self.walk.best
        refresh_all(self.problem, best)
        record(self.problem, best, True)
        return best.node_of_slot, best.paths, best.start_s.reshape(len(best.paths), -1)


@compiled
def anneal(
    problem: Problem, walk: Walk, proposals: Proposals, seed: int, iterations: int, temperature_s: float
) -> None:
    """Propose that many changes at one temperature, and take those that it lets pass."""
    np.random.seed(seed)
    state, best, costs, counts = walk.state, walk.best, walk.costs, walk.counts
    undo = new_undo(state)
    for _ in range(iterations):
        draw = np.random.random()
        kind = 0
        while kind < KINDS - 1 and proposals.weights[kind] < draw:
            kind += 1
        first = propose(problem, state, undo, kind, proposals.focus)
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
