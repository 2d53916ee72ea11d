"""Which stages a path may visit in which order: the rules CC1 to CC3 as a small automaton, compiled for the search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy.optimize import LinearConstraint, milp

from skippipe.errors import UserError
from skippipe.schedule.arrays import Integers
from skippipe.schedule.validation import MOST_STAGES_BEHIND_FRONTIER, MOST_STAGES_PAST_FRONTIER, MOST_SWAPS
from skippipe.search.compiled import compiled


@dataclass(frozen=True)
class StageRules:
    """Every state that a legal walk over the stages can be in; state 0 is the origin before its first hop.

    A swap may only go one stage behind the frontier (paper, CC2), so frontier, current stage, whether the stage behind
    the frontier was visited, swaps and length tell all that later moves depend on: few states, no set of stages.
    """

    stage: Integers
    """Current stage of each state, (states,)."""
    visited: Integers
    """Stages visited so far with stage 0, (states,); the states are sorted by it."""
    offsets: Integers
    """State s moves to targets[offsets[s]:offsets[s + 1]]."""
    targets: Integers

    @classmethod
    def make(cls, stages: int, path_length: int) -> StageRules:
        """The rules for paths of `path_length` over `stages`; UserError if no path exists."""
        assert MOST_STAGES_BEHIND_FRONTIER == 1, "the automaton remembers one stage behind the frontier"
        start = (0, 0, True, 0, 1)
        layers = [[start]]
        moves: dict[State, list[State]] = {}
        for _ in range(path_length - 1):
            following: dict[State, None] = {}
            for state in layers[-1]:
                moves[state] = next_states(state, stages)
                following |= dict.fromkeys(moves[state])
            layers.append(list(following))
        alive = set(layers[-1])
        for layer in reversed(layers[:-1]):
            alive |= {state for state in layer if any(target in alive for target in moves[state])}
        if start not in alive:
            raise UserError(f"no path of path_length {path_length} obeys CC1 to CC3 over {stages} stages")
        states = [state for layer in layers for state in layer if state in alive]
        number = {state: i for i, state in enumerate(states)}
        lists = [[number[target] for target in moves.get(state, []) if target in alive] for state in states]
        return cls(
            stage=np.array([state[1] for state in states], dtype=np.int64),
            visited=np.array([state[4] for state in states], dtype=np.int64),
            offsets=np.cumsum([0] + [len(entry) for entry in lists]).astype(np.int64),
            targets=np.array([target for entry in lists for target in entry], dtype=np.int64),
        )


State = tuple[int, int, bool, int, int]
"""Frontier, current stage, whether the stage behind the frontier was visited, swaps, stages visited."""


def next_states(state: State, stages: int) -> list[State]:
    """States one visit further: past the frontier by at most 4, or a swap to the stage just behind it."""
    frontier, _, behind_visited, swaps, visited = state
    furthest = min(frontier + MOST_STAGES_PAST_FRONTIER, stages - 1)
    following = [
        (stage, stage, stage == frontier + 1, swaps, visited + 1) for stage in range(frontier + 1, furthest + 1)
    ]
    if not behind_visited and swaps < MOST_SWAPS:
        following.append((frontier, frontier - 1, True, swaps + 1, visited + 1))
    return following


def even_walks(rules: StageRules, stages: int, count: int, rng: Generator) -> Integers:
    """`count` walks over the stages that visit each stage but 0 equally often, (count, path length).

    They are an integer flow over the rule automaton whose visits of every stage are given, cut at random.
    UserError if there are none: the bound on skipping leaves too few visits to some stages (CC3).
    """
    length, states = int(rules.visited[-1]), len(rules.stage)
    sources = np.repeat(np.arange(states), np.diff(rules.offsets))
    edges = np.arange(len(rules.targets))
    kept, visits = np.zeros((states, len(edges))), np.zeros((stages, len(edges)))
    np.add.at(kept, (sources, edges), 1.0)
    inner = np.diff(rules.offsets) > 0
    np.add.at(kept, (rules.targets, edges), -1.0)
    visits[rules.stage[rules.targets], edges] = 1.0
    wanted = np.full(stages, count * (length - 1) / (stages - 1))
    wanted[0] = 0.0
    supply = np.where(np.arange(states) == 0, float(count), 0.0)[inner]
    constraints = [LinearConstraint(kept[inner], supply, supply), LinearConstraint(visits, wanted, wanted)]
    solution = milp(
        np.zeros(len(edges)),
        integrality=np.ones(len(edges)),
        constraints=constraints,
        options={"mip_rel_gap": 1.0},
    )
    if solution.x is None:
        raise UserError(
            f"no {count} paths of path_length {length} visit the {stages} stages equally often, since a path skips at"
            f" most 3 stages in a row (CC3); nearest: path_length {length + 1} or {stages - 1} stages"
        )
    flow = np.rint(solution.x).astype(np.int64)
    walks = np.zeros((count, length), dtype=np.int64)
    for walk in walks:
        state = 0
        for place in range(1, length):
            choices = range(int(rules.offsets[state]), int(rules.offsets[state + 1]))
            edge = rng.choice([edge for edge in choices if flow[edge] > 0])
            flow[edge] -= 1
            state = int(rules.targets[edge])
            walk[place] = rules.stage[state]
    return walks


@compiled
def obeys_rules(path: Integers, stage_of: Integers) -> bool:
    """Whether a path keeps CC1, CC2 and the skip bound of CC3; the compiled twin of validation.path_problem.

    stage_of has the stage of each node, or of each slot for a path that is written in slots (joint search).
    """
    if stage_of[path[0]] != 0:
        return False
    frontier, behind_visited, swaps = 0, True, 0
    for i in range(1, len(path)):
        stage = stage_of[path[i]]
        if frontier < stage <= frontier + MOST_STAGES_PAST_FRONTIER:
            behind_visited = stage == frontier + 1
            frontier = stage
        elif stage == frontier - 1 and not behind_visited and swaps < MOST_SWAPS:
            behind_visited = True
            swaps += 1
        else:
            return False
    return True


def stage_table(stages: tuple[tuple[int, ...], ...]) -> Integers:
    """Stage of each node, (nodes,)."""
    table = np.full(sum(len(members) for members in stages), -1, dtype=np.int64)
    for stage, members in enumerate(stages):
        table[list(members)] = stage
    return table
