"""Bottleneck matching between the nodes of two stages, and the order of the stages that it asks for."""

from __future__ import annotations

import numpy as np

from skippipe.schedule.arrays import Floats, Integers
from skippipe.search.compiled import compiled

MOST_EXACT_STAGES = 11
"""Most stages whose order is found exactly; more are ordered by the nearest next stage."""


@compiled
def bottleneck(left: Integers, right: Integers, hop_s: Floats) -> float:
    """Smallest longest hop of a matching that covers the smaller stage (DT-FM, section 3)."""
    if len(left) > len(right):
        left, right = right, left
    values = np.empty(len(left) * len(right))
    for i in range(len(left)):
        for j in range(len(right)):
            values[i * len(right) + j] = hop_s[left[i], right[j]]
    values.sort()
    low, high = len(left) - 1, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        if matches_all(left, right, hop_s, values[middle]):
            high = middle
        else:
            low = middle + 1
    return float(values[low])


@compiled
def matches_all(left: Integers, right: Integers, hop_s: Floats, limit: float) -> bool:
    """Whether hops of at most `limit` match every node of left to its own node of right (augmenting paths)."""
    partner_of_right = np.full(len(right), -1)
    came_from = np.empty(len(right), dtype=np.int64)
    queue = np.empty(len(left), dtype=np.int64)
    for root in range(len(left)):
        came_from[:] = -1
        queue[0], head, tail, end = root, 0, 1, -1
        while head < tail and end < 0:
            i = queue[head]
            head += 1
            for j in range(len(right)):
                if came_from[j] < 0 and hop_s[left[i], right[j]] <= limit:
                    came_from[j] = i
                    if partner_of_right[j] < 0:
                        end = j
                        break
                    queue[tail] = partner_of_right[j]
                    tail += 1
        if end < 0:
            return False
        while end >= 0:
            i = came_from[end]
            before = -1
            for j in range(len(right)):
                if partner_of_right[j] == i:
                    before = j
            partner_of_right[end] = i
            end = before
    return True


@compiled
def stage_order(weight: Floats) -> tuple[float, Integers]:
    """Shortest open walk over all stages that begins at stage 0, and its length; weight is (stages, stages)."""
    stages = len(weight)
    if stages > MOST_EXACT_STAGES:
        return nearest_next(weight)
    others = stages - 1
    full = 1 << others
    length = np.full((full, others), np.inf)
    before = np.full((full, others), -1)
    for last in range(others):
        length[1 << last, last] = weight[0, last + 1]
    for chosen in range(1, full):
        for last in range(others):
            if length[chosen, last] == np.inf:
                continue
            for following in range(others):
                if chosen >> following & 1:
                    continue
                total = length[chosen, last] + weight[last + 1, following + 1]
                if total < length[chosen | 1 << following, following]:
                    length[chosen | 1 << following, following] = total
                    before[chosen | 1 << following, following] = last
    order = np.zeros(stages, dtype=np.int64)
    chosen, last = full - 1, int(np.argmin(length[full - 1]))
    shortest = length[chosen, last]
    for place in range(others, 0, -1):
        order[place] = last + 1
        chosen, last = chosen ^ 1 << last, int(before[chosen, last])
    return float(shortest), order


@compiled
def nearest_next(weight: Floats) -> tuple[float, Integers]:
    """A walk from stage 0 that always goes on to the nearest stage that is left."""
    stages = len(weight)
    order = np.zeros(stages, dtype=np.int64)
    left = np.ones(stages, dtype=np.bool_)
    left[0] = False
    total = 0.0
    for place in range(1, stages):
        best = -1
        for stage in range(stages):
            if left[stage] and (best < 0 or weight[order[place - 1], stage] < weight[order[place - 1], best]):
                best = stage
        total += weight[order[place - 1], best]
        order[place] = best
        left[best] = False
    return total, order
