"""Shortest conflict-free round trips by dynamic programming over the rule automaton: the exact rest of a path."""

from __future__ import annotations

import numpy as np

from skippipe.schedule.arrays import Floats, Integers
from skippipe.search.compiled import compiled
from skippipe.search.constraints import StageRules
from skippipe.search.problem import Instance, Stages


def shortest_round_trips(instance: Instance, stages: Stages, path_length: int) -> dict[int, float]:
    """Seconds from the first forward of a microbatch to the end of its last backward at best, for each stage-0 node."""
    rules = StageRules.make(len(stages), path_length)
    nodes, starts = node_lists(stages)
    costs = instance.costs
    there_and_back, work = costs.hop_s + costs.hop_s.T, costs.forward_s + costs.backward_s
    trips = {}
    for origin in stages[0]:
        rest = remaining_seconds(
            rules.stage, rules.offsets, rules.targets, nodes, starts, there_and_back, work, origin
        )
        trips[origin] = float(rest[0, origin] + work[origin] + costs.loss_s[origin])
    return trips


def node_lists(stages: Stages) -> tuple[Integers, Integers]:
    """Nodes of all stages in one array, and where each stage begins in it, (stages + 1,)."""
    starts = np.cumsum([0] + [len(members) for members in stages]).astype(np.int64)
    return np.array([node for members in stages for node in members], dtype=np.int64), starts


@compiled
def remaining_seconds(
    stage: Integers, offsets: Integers, targets: Integers, nodes: Integers, starts: Integers, there_and_back: Floats,
    work: Floats, origin: int,
) -> Floats:  # fmt: skip
    """Hops and work, forth and back, that a path in each state and at each node still needs, (states, nodes).

    Exact where no node is taken: the heuristic of the path search, consistent since waiting only adds to it. Left out
    are the work of the node itself and of the origin.
    """
    states = len(stage)
    rest = np.full((states, len(work)), np.inf)
    for state in range(states - 1, -1, -1):
        for x in nodes[starts[stage[state]] : starts[stage[state] + 1]]:
            if offsets[state] == offsets[state + 1]:
                rest[state, x] = there_and_back[x, origin]
            elif state > 0 or x == origin:
                best = np.inf
                for k in range(offsets[state], offsets[state + 1]):
                    target = targets[k]
                    for y in nodes[starts[stage[target]] : starts[stage[target] + 1]]:
                        best = min(best, there_and_back[x, y] + work[y] + rest[target, y])
                rest[state, x] = best
    return rest
