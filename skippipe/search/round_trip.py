"""Shortest conflict-free round trips by dynamic programming over the rule automaton: the exact rest of a path."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skippipe.schedule.arrays import Floats, Integers
from skippipe.schedule.costs import CostArrays
from skippipe.search.compiled import compiled
from skippipe.search.constraints import StageRules
from skippipe.search.problem import Instance, Stages


class PathGraph(NamedTuple):
    """Where paths may go: from state to state of the rule automaton (StageRules), over the nodes of their stages."""

    stage: Integers
    """Stage of each state, (states,); state 0 is the origin before its first hop."""
    offsets: Integers
    """State s moves to targets[offsets[s]:offsets[s + 1]], (states + 1,); a state that moves nowhere ends a path."""
    targets: Integers
    nodes: Integers
    """All nodes, stage by stage."""
    node_offsets: Integers
    """Stage k has nodes[node_offsets[k]:node_offsets[k + 1]], (stages + 1,)."""


def path_graph(rules: StageRules, stages: Stages) -> PathGraph:
    """The graph of the paths that obey the rules over the nodes of these stages."""
    node_offsets = np.cumsum([0] + [len(members) for members in stages]).astype(np.int64)
    nodes = np.array([node for members in stages for node in members], dtype=np.int64)
    return PathGraph(rules.stage, rules.offsets, rules.targets, nodes, node_offsets)


def shortest_round_trips(instance: Instance, stages: Stages, path_length: int) -> dict[int, float]:
    """Seconds from the first forward of a microbatch to the end of its last backward at best, for each stage-0 node."""
    graph = path_graph(StageRules.make(len(stages), path_length), stages)
    costs = instance.costs.arrays
    trips = {}
    for origin in stages[0]:
        work = costs.forward_s[origin] + costs.backward_s[origin]
        rest_s = remaining_seconds(graph, costs, origin)
        trips[origin] = float(rest_s[0, origin] + work + costs.loss_s[origin])
    return trips


@compiled
def remaining_seconds(graph: PathGraph, costs: CostArrays, origin: int) -> Floats:
    """Hops and work, forth and back, that a path in each state and at each node still needs, (states, nodes).

    Exact if no node is taken: the heuristic of the path search, consistent since waiting only adds to it. Left out
    are the work of the node itself and of the origin.
    """
    there_and_back, work = costs.hop_s + costs.hop_s.T, costs.forward_s + costs.backward_s
    states = len(graph.stage)
    rest_s = np.full((states, len(work)), np.inf)
    for state in range(states - 1, -1, -1):
        stage = graph.stage[state]
        for x in graph.nodes[graph.node_offsets[stage] : graph.node_offsets[stage + 1]]:
            if graph.offsets[state] == graph.offsets[state + 1]:
                rest_s[state, x] = there_and_back[x, origin]
            elif state > 0 or x == origin:
                best = np.inf
                for target in graph.targets[graph.offsets[state] : graph.offsets[state + 1]]:
                    following = graph.stage[target]
                    for y in graph.nodes[graph.node_offsets[following] : graph.node_offsets[following + 1]]:
                        best = min(best, there_and_back[x, y] + work[y] + rest_s[target, y])
                rest_s[state, x] = best
    return rest_s
