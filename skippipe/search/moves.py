"""Local improvement of paths: annealed exchanges of visits, tails and order, every candidate judged by simulation."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from skippipe.schedule.arrays import Floats, Integers
from skippipe.search.compiled import compiled, first_come_first_served
from skippipe.search.constraints import obeys_rules

NEVER = 1e18
"""Seconds of paths on which first-come-first-served gets stuck."""
MEAN_WEIGHT = 0.02
"""Weight of the mean over origins beside the slowest origin: it points the way on plateaus."""


@compiled
def sort_by_stage(path: Integers, stage_of: Integers) -> None:
    """Put the visits of a path in the order of the stages, in place."""
    for i in range(2, len(path)):
        node, j = path[i], i
        while j > 1 and stage_of[path[j - 1]] > stage_of[node]:
            path[j] = path[j - 1]
            j -= 1
        path[j] = node


@compiled
def propose(first: Integers, second: Integers, stage_of: Integers, rng: Generator) -> bool:
    """Change two paths in place by a random move that keeps every node's visits; False where it breaks the rules.

    Moves: exchange one visit (of the same or of two stages), exchange the tails, move a visit within its path.
    """
    length = len(first)
    kind = rng.random()
    i, j = 1 + int(rng.random() * (length - 1)), 1 + int(rng.random() * (length - 1))
    if kind < 0.65:
        if kind < 0.4:
            for k in range(1, length):
                if stage_of[second[k]] == stage_of[first[i]]:
                    j = k
        first[i], second[j] = second[j], first[i]
        for path in (first, second):
            if not obeys_rules(path, stage_of):
                sort_by_stage(path, stage_of)
    elif kind < 0.8:
        for k in range(i, length):
            first[k], second[k] = second[k], first[k]
    else:
        node = first[i]
        while i < j:
            first[i] = first[i + 1]
            i += 1
        while i > j:
            first[i] = first[i - 1]
            i -= 1
        first[i] = node
    return obeys_rules(first, stage_of) and obeys_rules(second, stage_of)


@compiled
def pipeline_seconds(
    path: Integers, forward_s: Floats, loss_s: Floats, backward_s: Floats, hop_s: Floats, gap_s: float, memory: int,
    sends: int,
) -> float:
    """Iteration time of one origin whose `sends` microbatches all take this path and meet nobody else's."""
    length = len(path)
    hops = np.empty((length, length))
    for i in range(length):
        for j in range(length):
            hops[i, j] = hop_s[path[i], path[j]]
    paths = np.empty((sends, length), dtype=np.int64)
    paths[:] = np.arange(length)
    forward, loss, backward = forward_s[path], loss_s[path], backward_s[path]
    return seconds_of(paths, forward, loss, backward, hops, gap_s, memory)


@compiled
def seconds_of(
    paths: Integers, forward_s: Floats, loss_s: Floats, backward_s: Floats, hop_s: Floats, gap_s: float, memory: int
) -> float:
    """Iteration time of these paths served first come, first served; NEVER where the nodes get stuck."""
    starts = first_come_first_served(paths, forward_s, loss_s, backward_s, hop_s, gap_s, memory)
    last = 0.0
    for microbatch in range(len(paths)):
        end = starts[microbatch, -1] + backward_s[paths[microbatch, 0]]
        if np.isnan(end):
            return NEVER
        last = max(last, end)
    return last


@compiled
def anneal_pipelines(
    paths: Integers,
    seconds: Floats,
    best: Integers,
    stage_of: Integers,
    forward_s: Floats,
    loss_s: Floats,
    backward_s: Floats,
    hop_s: Floats,
    gap_s: float,
    memory: int,
    sends: int,
    heat: float,
    steps: int,
    rng: Generator,
) -> None:
    """Anneal one path an origin, (origins, path length), in place; no two paths share a node.

    seconds (origins,) belongs to paths; best takes over paths that are better than it. A move changes two origins, so
    its cost does not grow with the nodes.
    """
    origins = len(paths)
    value = seconds.max() + MEAN_WEIGHT * seconds.mean()
    best_value = NEVER
    for step in range(steps):
        i = int(rng.random() * origins) if step % 2 else np.argmax(seconds)
        j = int(rng.random() * origins)
        if i == j:
            continue
        first, second = paths[i].copy(), paths[j].copy()
        if not propose(first, second, stage_of, rng):
            continue
        before_i, before_j = seconds[i], seconds[j]
        seconds[i] = pipeline_seconds(first, forward_s, loss_s, backward_s, hop_s, gap_s, memory, sends)
        seconds[j] = pipeline_seconds(second, forward_s, loss_s, backward_s, hop_s, gap_s, memory, sends)
        changed = seconds.max() + MEAN_WEIGHT * seconds.mean()
        if changed <= value - heat * np.log(1.0 - rng.random()):
            paths[i], paths[j], value = first, second, changed
            if value < best_value:
                best_value = value
                best[:] = paths
        else:
            seconds[i], seconds[j] = before_i, before_j


@compiled
def anneal_round(
    paths: Integers,
    current: float,
    best: Integers,
    best_seconds: float,
    stage_of: Integers,
    best_stage_of: Integers,
    relabel: float,
    sync_pair_s: Floats,
    sync_limit_s: float,
    forward_s: Floats,
    loss_s: Floats,
    backward_s: Floats,
    hop_s: Floats,
    gap_s: float,
    memory: int,
    rounds: int,
    heat: float,
    steps: int,
    rng: Generator,
) -> tuple[float, float]:
    """Anneal the paths of a round, (origins x memory, path length), in place; every round repeats them.

    With chance `relabel` a move exchanges two nodes of two stages, in stage_of and on every path, instead of visits,
    as long as no stage's data-parallel sync then takes more than sync_limit_s; sync_pair_s is (nodes, nodes).
    Returns the iteration time of paths and of best, which takes over paths that are better than it.
    """
    count = len(paths)
    whole = np.empty((count * rounds, paths.shape[1]), dtype=np.int64)
    for _ in range(steps):
        i, j = int(rng.random() * count), int(rng.random() * count)
        if i == j:
            continue
        u = v = -1
        before_i, before_j = paths[i].copy(), paths[j].copy()
        if rng.random() < relabel:
            u, v = int(rng.random() * len(stage_of)), int(rng.random() * len(stage_of))
            if stage_of[u] == stage_of[v]:
                continue
            exchange_nodes(paths, stage_of, u, v)
            if max(slowest_sync(u, stage_of, sync_pair_s), slowest_sync(v, stage_of, sync_pair_s)) > sync_limit_s:
                exchange_nodes(paths, stage_of, u, v)
                continue
        else:
            first, second = paths[i].copy(), paths[j].copy()
            if not propose(first, second, stage_of, rng):
                continue
            if (first == paths[i]).all() and (second == paths[j]).all():
                continue
            paths[i], paths[j] = first, second
        write_rounds(paths, memory, rounds, whole)
        changed = seconds_of(whole, forward_s, loss_s, backward_s, hop_s, gap_s, memory)
        if changed <= current - heat * np.log(1.0 - rng.random()):
            current = changed
            if current < best_seconds:
                best_seconds = current
                best[:], best_stage_of[:] = paths, stage_of
        elif u >= 0:
            exchange_nodes(paths, stage_of, u, v)
        else:
            paths[i], paths[j] = before_i, before_j
    return current, best_seconds


@compiled
def exchange_nodes(paths: Integers, stage_of: Integers, u: int, v: int) -> None:
    """Let two nodes change places, in place: each takes the other's stage and visits."""
    stage_of[u], stage_of[v] = stage_of[v], stage_of[u]
    for i in range(paths.shape[0]):
        for k in range(paths.shape[1]):
            if paths[i, k] == u:
                paths[i, k] = v
            elif paths[i, k] == v:
                paths[i, k] = u


@compiled
def slowest_sync(node: int, stage_of: Integers, sync_pair_s: Floats) -> float:
    """Seconds of the sync over the slowest link between a node and the others of its stage."""
    slowest = 0.0
    for other in range(len(stage_of)):
        if other != node and stage_of[other] == stage_of[node]:
            slowest = max(slowest, sync_pair_s[node, other])
    return slowest


@compiled
def write_rounds(paths: Integers, memory: int, rounds: int, whole: Integers) -> None:
    """Write every microbatch's path into whole, origin by origin; the i-th of an origin takes its path i mod memory."""
    sends = memory * rounds
    for row in range(len(whole)):
        whole[row] = paths[row // sends * memory + row % memory]
