"""Event simulation of one iteration, exact on the cost model: what "expected time" means.

The two kernels at the end are plain loops over arrays, which the search compiles for itself. If a path has K nodes,
step s of its microbatch is a forward on path[s] for s < K, the loss at the origin for s = K and a backward on
path[2K - s] for s > K (paper, section on the pipeline; the gradient walks the path backwards).
"""

from __future__ import annotations

import heapq
from typing import TypeVar

import numpy as np

from skippipe.schedule.arrays import Floats, Integers
from skippipe.schedule.costs import CostArrays, Costs

Tasks = TypeVar("Tasks", int, Integers)


def simulate_first_come_first_served(paths: Integers, costs: Costs, memory: int) -> Floats:
    """Start of each step in seconds, (microbatches, 2K + 1), if nodes serve what arrives first.

    An origin has at most `memory` microbatches in flight, a relay defers a forward while it holds `memory`. Steps that
    never run (the nodes wait for each other) start at NaN.
    """
    return first_come_first_served(paths, costs.arrays, memory)


def simulate_order(paths: Integers, costs: Costs, tasks: Integers, offsets: Integers) -> Floats:
    """Start of each step in seconds, (microbatches, 2K + 1), if each node runs its order list strictly.

    Node n runs tasks[offsets[n]:offsets[n + 1]], each by its task_number. Steps that never run start
    at NaN.
    """
    return follow_order(paths, costs.arrays, tasks, offsets)


def task_number(microbatch: Tasks, step: int, path_length: int) -> Tasks:
    """The number that the simulations know step `step` of a microbatch by; its path visits `path_length` nodes.

    The kernels below, which are compiled elsewhere, write the same out: task = microbatch * (2K + 1) + step.
    """
    return microbatch * (2 * path_length + 1) + step


def split_task(task: Tasks, path_length: int) -> tuple[Tasks, Tasks]:
    """Microbatch and step of a task's number, the inverse of task_number."""
    return task // (2 * path_length + 1), task % (2 * path_length + 1)


def step_nodes(paths: Integers) -> Integers:
    """Node of each step, (microbatches, 2K + 1)."""
    return np.concatenate([paths, paths[:, :1], paths[:, ::-1]], axis=1)


def step_seconds(paths: Integers, costs: Costs) -> Floats:
    """Duration of each step, (microbatches, 2K + 1)."""
    forward, backward = costs.forward_s[paths], costs.backward_s[paths[:, ::-1]]
    return np.concatenate([forward, costs.loss_s[paths[:, :1]], backward], axis=1)


def iteration_seconds(paths: Integers, costs: Costs, starts: Floats) -> float:
    """From the first forward to the last backward."""
    return float((starts + step_seconds(paths, costs)).max() - starts.min())


def step_with_sync_seconds(
    paths: Integers, costs: Costs, starts: Floats, stages: list[list[int]], sync_s: list[float]
) -> float:
    """From the first forward to the end of the last stage's sync; a stage syncs when its own last backward is done."""
    ends = starts + step_seconds(paths, costs)
    backward_steps = slice(paths.shape[1] + 1, None)
    last = np.zeros(len(costs.forward_s))
    np.maximum.at(last, step_nodes(paths)[:, backward_steps], ends[:, backward_steps])
    return float(
        max(last[stage].max() + sync for stage, sync in zip(stages, sync_s, strict=True) if stage) - starts.min()
    )


def step_arrivals(paths: Integers, costs: Costs, starts: Floats) -> Floats:
    """When the message of each step but the last arrives at the next one's node, (microbatches, 2K)."""
    nodes, ends = step_nodes(paths), (starts + step_seconds(paths, costs))[:, :-1]
    arrays = costs.arrays
    arrivals = np.empty_like(ends)
    link_free, uplink_free = np.zeros(arrays.hop_s.shape), np.zeros(len(arrays.hop_s))
    for place in np.argsort(starts[:, :-1], axis=None, kind="stable"):
        step = np.unravel_index(place, ends.shape)
        node, target = nodes[step], nodes[step[0], step[1] + 1]
        sent = max(ends[step], uplink_free[node])
        uplink_free[node] = sent + arrays.uplink_busy_s[node, target]
        sent = max(sent, link_free[node, target])
        link_free[node, target] = sent + arrays.link_busy_s[node, target]
        arrivals[step] = sent + arrays.hop_s[node, target]
    return arrivals


def order_from_starts(paths: Integers, starts: Floats, nodes: int) -> tuple[Integers, Integers]:
    """The order in which each node ran its tasks, as (tasks, offsets) for simulate_order."""
    flat_nodes = step_nodes(paths).ravel()
    tasks = np.lexsort((np.arange(flat_nodes.size), starts.ravel(), flat_nodes)).astype(np.int64)
    counts = np.bincount(flat_nodes, minlength=nodes)
    return tasks, np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])


def first_come_first_served(paths: Integers, costs: CostArrays, memory: int) -> Floats:
    """Kernel of simulate_first_come_first_served."""
    microbatches, length = paths.shape
    nodes, steps = costs.forward_s.shape[0], 2 * length + 1
    starts = np.full((microbatches, steps), np.nan)
    visits = np.zeros(nodes, dtype=np.int64)
    for visited in paths.flat:
        visits[visited] += 3
    room = visits.max() + 1
    # What waits at each node: arrival time, running number of the arrival and task, in no particular order.
    waiting_since = np.zeros((nodes, room))
    waiting_number = np.zeros((nodes, room), dtype=np.int64)
    waiting_task = np.zeros((nodes, room), dtype=np.int64)
    waiting, held = np.zeros(nodes, dtype=np.int64), np.zeros(nodes, dtype=np.int64)
    running = np.full(nodes, -1, dtype=np.int64)
    next_own = np.full(microbatches, -1, dtype=np.int64)
    newest_own, queue_own = np.full(nodes, -1, dtype=np.int64), np.full(nodes, -1, dtype=np.int64)
    started_own = np.zeros(nodes, dtype=np.int64)
    # When each node's link to each other one is free again, and in the last column its uplink.
    link_free = np.zeros((nodes, nodes + 1))
    number = 0
    # Events: (time, number, node, task), task -1 if a node becomes free.
    events = [(0.0, 0, 0, 0)]
    events.pop()
    for m in range(microbatches):
        origin = paths[m, 0]
        if started_own[origin] < memory:
            started_own[origin] += 1
            heapq.heappush(events, (0.0, number, int(origin), m * steps))
            number += 1
        else:
            if queue_own[origin] < 0:
                queue_own[origin] = m
            else:
                next_own[newest_own[origin]] = m
            newest_own[origin] = m
    while len(events) > 0:
        now, order, node, task = heapq.heappop(events)
        if task >= 0:
            slot = waiting[node]
            waiting_since[node, slot] = now
            waiting_number[node, slot] = order
            waiting_task[node, slot] = task
            waiting[node] += 1
        else:
            if running[node] % steps > length:
                held[node] -= 1
            running[node] = -1
        if running[node] >= 0:
            continue
        best, earliest = -1, (np.inf, 0)
        for slot in range(waiting[node]):
            if waiting_task[node, slot] % steps < length and held[node] >= memory:
                continue
            arrived = (waiting_since[node, slot], waiting_number[node, slot])
            if arrived < earliest:
                best, earliest = slot, arrived
        if best < 0:
            continue
        task = int(waiting_task[node, best])
        waiting[node] -= 1
        waiting_since[node, best] = waiting_since[node, waiting[node]]
        waiting_number[node, best] = waiting_number[node, waiting[node]]
        waiting_task[node, best] = waiting_task[node, waiting[node]]
        running[node] = task
        m, step = task // steps, task % steps
        starts[m, step] = now
        if step < length:
            held[node] += 1
            end = now + costs.forward_s[node]
        elif step == length:
            end = now + costs.loss_s[node]
        else:
            end = now + costs.backward_s[node]
        if step + 1 < steps:
            following = 0 if step + 1 == length else (step + 1 if step + 1 < length else 2 * length - step - 1)
            target = int(paths[m, following])
            sent = max(end, link_free[node, nodes])
            link_free[node, nodes] = sent + costs.uplink_busy_s[node, target]
            sent = max(sent, link_free[node, target])
            link_free[node, target] = sent + costs.link_busy_s[node, target]
            heapq.heappush(events, (sent + costs.hop_s[node, target], number, target, task + 1))
            number += 1
        elif queue_own[node] >= 0:
            heapq.heappush(events, (end, number, node, int(queue_own[node]) * steps))
            number += 1
            queue_own[node] = next_own[queue_own[node]]
        heapq.heappush(events, (end + costs.gap_s, number, node, -1))
        number += 1
    return starts


def follow_order(paths: Integers, costs: CostArrays, tasks: Integers, offsets: Integers) -> Floats:
    """Kernel of simulate_order."""
    microbatches, length = paths.shape
    nodes, steps = costs.forward_s.shape[0], 2 * length + 1
    starts = np.full((microbatches, steps), np.nan)
    arrival = np.full(microbatches * steps, np.nan)
    for m in range(microbatches):
        arrival[m * steps] = 0.0
    position = offsets[:-1].copy()
    free = np.zeros(nodes)
    # When each node's link to each other one is free again, and in the last column its uplink.
    link_free = np.zeros((nodes, nodes + 1))
    # Every node once, and once more if the input that it waits for arrives before its turn.
    stack = np.concatenate((np.arange(nodes), np.zeros(nodes, dtype=np.int64)))
    depth = nodes
    while depth > 0:
        depth -= 1
        node = stack[depth]
        while position[node] < offsets[node + 1]:
            task = tasks[position[node]]
            if np.isnan(arrival[task]):
                break
            position[node] += 1
            m, step = task // steps, task % steps
            start = max(arrival[task], free[node])
            starts[m, step] = start
            if step < length:
                end = start + costs.forward_s[node]
            elif step == length:
                end = start + costs.loss_s[node]
            else:
                end = start + costs.backward_s[node]
            free[node] = end + costs.gap_s
            if step + 1 < steps:
                following = 0 if step + 1 == length else (step + 1 if step + 1 < length else 2 * length - step - 1)
                target = paths[m, following]
                sent = max(end, link_free[node, nodes])
                link_free[node, nodes] = sent + costs.uplink_busy_s[node, target]
                sent = max(sent, link_free[node, target])
                link_free[node, target] = sent + costs.link_busy_s[node, target]
                arrival[task + 1] = sent + costs.hop_s[node, target]
                if target != node and position[target] < offsets[target + 1] and tasks[position[target]] == task + 1:
                    stack[depth] = target
                    depth += 1
    return starts
