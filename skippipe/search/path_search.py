"""A* over the round trip of one microbatch, in continuous time, around the windows in which nodes are taken."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from skippipe.schedule.arrays import Flags, Floats, Integers
from skippipe.search.compiled import compiled
from skippipe.search.problem import Instance
from skippipe.search.round_trip import node_lists, remaining_seconds

MOST_ENTRIES = 2_000_000
"""Prefixes that one search may hold; beyond, it gives up as if there were no path."""

Window = tuple[int, float, float]
"""A node, and the time from when until when a microbatch may not use it."""


@dataclass
class PathSearch:
    """Finds fastest round trips on one instance; the exact rest of every path is worked out once an origin."""

    instance: Instance
    rest: dict[int, Floats] = field(default_factory=dict)

    def find(
        self, origin: int, release_s: float, blocked: Flags, windows: Sequence[Window]
    ) -> tuple[Integers, Floats] | None:
        """The path, (path length,), that ends its round trip first, and the start of each step, (2K + 1,).

        The first forward starts at release_s or later; blocked nodes, (nodes,), are not visited; a task and the gap
        after it stay out of the windows. Waiting at a node is allowed. None where no path is left.
        """
        instance, costs, rules = self.instance, self.instance.costs, self.instance.rules
        nodes, starts = node_lists(instance.fixed_stages)
        if origin not in self.rest:
            there_and_back, work = costs.hop_s + costs.hop_s.T, costs.forward_s + costs.backward_s
            self.rest[origin] = remaining_seconds(
                rules.stage, rules.offsets, rules.targets, nodes, starts, there_and_back, work, origin
            )
        ordered = sorted(windows)
        path, times = find_path(
            origin, release_s, rules.stage, rules.offsets, rules.targets, nodes, starts, costs.forward_s, costs.loss_s,
            costs.backward_s, costs.hop_s, costs.task_gap_s, self.rest[origin], blocked,
            np.array([window[0] for window in ordered], dtype=np.int64),
            np.array([window[1] for window in ordered], dtype=np.float64),
            np.array([window[2] for window in ordered], dtype=np.float64),
        )  # fmt: skip
        return (path, times) if len(path) else None


@compiled
def earliest(node: int, ready: float, lasts: float, at: Integers, begins: Floats, ends: Floats) -> float:
    """First time from `ready` on at which the node is free for `lasts` seconds; windows sorted by node and begin."""
    for i in range(np.searchsorted(at, node), len(at)):
        if at[i] != node or ready + lasts <= begins[i]:
            break
        ready = max(ready, ends[i])
    return ready


@compiled
def way_back(
    path: Integers, times: Floats, loss_s: Floats, backward_s: Floats, hop_s: Floats, gap_s: float, at: Integers,
    begins: Floats, ends: Floats,
) -> float:  # fmt: skip
    """Fill in the starts of loss and backwards of a path whose last forward ends at times[K]; returns the end."""
    length = len(path)
    origin = path[0]
    ready = times[length] + hop_s[path[-1], origin]
    times[length] = earliest(origin, ready, loss_s[origin] + gap_s, at, begins, ends)
    end, here = times[length] + loss_s[origin], origin
    for step in range(length + 1, 2 * length + 1):
        node = path[2 * length - step]
        times[step] = earliest(node, end + hop_s[here, node], backward_s[node] + gap_s, at, begins, ends)
        end, here = times[step] + backward_s[node], node
    return float(end)


@compiled
def find_path(
    origin: int, release_s: float, stage: Integers, offsets: Integers, targets: Integers, nodes: Integers,
    starts: Integers, forward_s: Floats, loss_s: Floats, backward_s: Floats, hop_s: Floats, gap_s: float, rest: Floats,
    blocked: Flags, at: Integers, begins: Floats, ends: Floats,
) -> tuple[Integers, Floats]:  # fmt: skip
    """Kernel of PathSearch.find; empty arrays where there is no path.

    An entry is a prefix of the path. Its estimate is the time so far, the exact rest forth and back without conflicts,
    and the way back over the prefix; a finished round trip waits in the heap too, until no estimate is below its end.
    """
    nothing = np.empty(0, dtype=np.int64), np.empty(0)
    begin = earliest(origin, release_s, forward_s[origin] + gap_s, at, begins, ends)
    parents, places, states, begun = [-1], [origin], [0], [begin]
    back = [backward_s[origin]]
    first = begin + forward_s[origin] + rest[0, origin] + loss_s[origin] + backward_s[origin]
    heap = [(first, 0, False)]
    while len(heap) > 0:
        _, entry, finished = heapq.heappop(heap)
        state, here = states[entry], places[entry]
        final = offsets[state] == offsets[state + 1]
        if final:
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
            end = way_back(path, times, loss_s, backward_s, hop_s, gap_s, at, begins, ends)
            if finished:
                return path, times
            heapq.heappush(heap, (end, entry, True))
            continue
        if len(places) > MOST_ENTRIES:
            return nothing
        for k in range(offsets[state], offsets[state + 1]):
            target = targets[k]
            for node in nodes[starts[stage[target]] : starts[stage[target] + 1]]:
                if blocked[node]:
                    continue
                ready = begun[entry] + forward_s[here] + hop_s[here, node]
                begin = earliest(node, ready, forward_s[node] + gap_s, at, begins, ends)
                way = back[entry] + hop_s[node, here] + backward_s[node]
                estimate = begin + forward_s[node] + rest[target, node] + loss_s[origin] + way
                if estimate < np.inf:
                    heapq.heappush(heap, (estimate, len(places), False))
                    parents.append(entry)
                    places.append(node)
                    states.append(target)
                    begun.append(begin)
                    back.append(way)
    return nothing
