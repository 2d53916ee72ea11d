"""A* over the round trip of one microbatch, in continuous time, around the windows in which nodes are taken."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from skippipe.schedule.arrays import Flags, Floats, Integers
from skippipe.schedule.costs import CostArrays
from skippipe.search.compiled import compiled
from skippipe.search.problem import Instance
from skippipe.search.round_trip import PathGraph, path_graph, remaining_seconds

MOST_ENTRIES = 2_000_000
"""Prefixes that one search may hold; beyond, it gives up as if there were no path."""

Window = tuple[int, float, float]
"""A node, and the time from when until when a microbatch may not use it."""


class Windows(NamedTuple):
    """Windows for the compiled search, sorted by node and begin; each array is (windows,)."""

    node: Integers
    begin_s: Floats
    end_s: Floats

    @classmethod
    def of(cls, windows: Sequence[Window]) -> Windows:
        """The windows, sorted, as arrays."""
        node, begin_s, end_s = zip(*sorted(windows), strict=True) if windows else ((), (), ())
        return cls(np.array(node, dtype=np.int64), np.array(begin_s, dtype=float), np.array(end_s, dtype=float))


@dataclass
class PathSearch:
    """Finds fastest round trips on one instance; the exact rest of every path is worked out once an origin."""

    instance: Instance
    rest_s: dict[int, Floats] = field(default_factory=dict)
    """remaining_seconds of each origin."""
    graph: PathGraph = field(init=False)

    def __post_init__(self) -> None:
        self.graph = path_graph(self.instance.rules, self.instance.fixed_stages)

    def find(
        self, origin: int, release_s: float, blocked: Flags, windows: Sequence[Window]
    ) -> tuple[Integers, Floats] | None:
        """The path, (path length,), that ends its round trip first, and the start of each step, (2K + 1,).

        The first forward starts at release_s or later; blocked nodes, (nodes,), are not visited; a task and the gap
        after it stay out of the windows. Waiting at a node is allowed. None if no path is left.
        """
        costs = self.instance.costs.arrays
        if origin not in self.rest_s:
            self.rest_s[origin] = remaining_seconds(self.graph, costs, origin)
        taken = Windows.of(windows)
        path, times = find_path(origin, release_s, self.graph, costs, self.rest_s[origin], blocked, taken)
        return (path, times) if len(path) else None


@compiled
def earliest(node: int, ready: float, lasts: float, windows: Windows) -> float:
    """First time from `ready` on at which the node is free for `lasts` seconds."""
    for i in range(np.searchsorted(windows.node, node), len(windows.node)):
        if windows.node[i] != node or ready + lasts <= windows.begin_s[i]:
            break
        ready = max(ready, windows.end_s[i])
    return ready


@compiled
def way_back(path: Integers, times: Floats, costs: CostArrays, windows: Windows) -> float:
    """Fill in the starts of loss and backwards of a path whose last forward ends at times[K]; returns the end."""
    length = len(path)
    origin = path[0]
    ready = times[length] + costs.hop_s[path[-1], origin]
    times[length] = earliest(origin, ready, costs.loss_s[origin] + costs.gap_s, windows)
    end, here = times[length] + costs.loss_s[origin], origin
    for step in range(length + 1, 2 * length + 1):
        node = path[2 * length - step]
        times[step] = earliest(node, end + costs.hop_s[here, node], costs.backward_s[node] + costs.gap_s, windows)
        end, here = times[step] + costs.backward_s[node], node
    return float(end)


@compiled
def find_path(
    origin: int,
    release_s: float,
    graph: PathGraph,
    costs: CostArrays,
    rest_s: Floats,
    blocked: Flags,
    windows: Windows,
) -> tuple[Integers, Floats]:
    """Kernel of PathSearch.find; empty arrays if there is no path. rest_s is the origin's remaining_seconds.

    An entry is a prefix of the path. Its estimate is the time so far, the exact rest forth and back without conflicts,
    and the way back over the prefix; a finished round trip waits in the heap too, until no estimate is below its end.
    """
    nothing = np.empty(0, dtype=np.int64), np.empty(0)
    forward_s, backward_s, loss_s = costs.forward_s, costs.backward_s, costs.loss_s[origin]
    begin = earliest(origin, release_s, forward_s[origin] + costs.gap_s, windows)
    parents, places, states, begun = [-1], [origin], [0], [begin]
    back = [backward_s[origin]]
    first = begin + forward_s[origin] + rest_s[0, origin] + loss_s + backward_s[origin]
    heap = [(first, 0, False)]
    while len(heap) > 0:
        _, entry, finished = heapq.heappop(heap)
        state, here = states[entry], places[entry]
        if graph.offsets[state] == graph.offsets[state + 1]:
            length = 0
            ancestor = entry
            while ancestor >= 0:
                length += 1
                ancestor = parents[ancestor]
            path, times = np.empty(length, dtype=np.int64), np.empty(2 * length + 1)
            ancestor = entry
            for place in range(length - 1, -1, -1):
                path[place], times[place] = places[ancestor], begun[ancestor]
                ancestor = parents[ancestor]
            times[length] = times[length - 1] + forward_s[here]
            end = way_back(path, times, costs, windows)
            if finished:
                return path, times
            heapq.heappush(heap, (end, entry, True))
            continue
        if len(places) > MOST_ENTRIES:
            return nothing
        for target in graph.targets[graph.offsets[state] : graph.offsets[state + 1]]:
            stage = graph.stage[target]
            for node in graph.nodes[graph.node_offsets[stage] : graph.node_offsets[stage + 1]]:
                if blocked[node]:
                    continue
                ready = begun[entry] + forward_s[here] + costs.hop_s[here, node]
                begin = earliest(node, ready, forward_s[node] + costs.gap_s, windows)
                way = back[entry] + costs.hop_s[node, here] + backward_s[node]
                estimate = begin + forward_s[node] + rest_s[target, node] + loss_s + way
                if estimate < np.inf:
                    heapq.heappush(heap, (estimate, len(places), False))
                    parents.append(entry)
                    places.append(node)
                    states.append(target)
                    begun.append(begin)
                    back.append(way)
    return nothing
