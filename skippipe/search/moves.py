"""Local improvement of paths: annealed exchanges of visits, tails and order, every candidate judged by simulation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from skippipe.schedule.arrays import Floats, Integers
from skippipe.schedule.costs import CostArrays
from skippipe.search.compiled import compiled, first_come_first_served
from skippipe.search.constraints import obeys_rules

NEVER = 1e18
"""Seconds of paths on which first-come-first-served gets stuck."""
MEAN_ORIGIN_WEIGHT = 0.02
"""Weight of the mean over origins beside the slowest origin: it points the way on plateaus."""


class PipelineProblem(NamedTuple):
    """What stays fixed while one path an origin is annealed."""

    stage_of: Integers
    """Stage of each node, (nodes,)."""
    costs: CostArrays
    memory: int
    """Most microbatches that a node holds between forward and backward."""
    sends: int
    """Microbatches that each origin sends along its path."""


class RoundProblem(NamedTuple):
    """What stays fixed while the paths of a round are annealed."""

    costs: CostArrays
    memory: int
    """Most microbatches that a node holds between forward and backward; an origin has as many paths."""
    rounds: int
    """Rounds of an iteration; all take the same paths."""
    relabel: float
    """Chance that a move exchanges two nodes of two stages, with their places on all paths, instead of visits."""
    pair_sync_s: Floats
    """costs.pair_sync_seconds of each stage, (stages, nodes, nodes)."""
    sync_limit_s: float
    """Longest data-parallel sync of a stage that an exchange of nodes may lead to."""


class RoundSolution(NamedTuple):
    """Paths of a round and what belongs to them; changed in place."""

    paths: Integers
    """(origins x memory, path length)."""
    stage_of: Integers
    """Stage of each node, (nodes,)."""
    seconds: Floats
    """Iteration time, (1,)."""


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
    """Change two paths in place by a random move that keeps every node's visits; False if it breaks the rules.

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
def pipeline_seconds(path: Integers, costs: CostArrays, memory: int, sends: int) -> float:
    """Iteration time of one origin whose `sends` microbatches all take this path and meet nobody else's."""
    length = len(path)
    hop_s = np.empty((length, length))
    link_busy_s, uplink_busy_s = np.empty_like(hop_s), np.empty_like(hop_s)
    for i in range(length):
        for j in range(length):
            hop_s[i, j] = costs.hop_s[path[i], path[j]]
            link_busy_s[i, j] = costs.link_busy_s[path[i], path[j]]
            uplink_busy_s[i, j] = costs.uplink_busy_s[path[i], path[j]]
    forward_s, loss_s, backward_s = costs.forward_s[path], costs.loss_s[path], costs.backward_s[path]
    alone = CostArrays(forward_s, loss_s, backward_s, hop_s, costs.gap_s, link_busy_s, uplink_busy_s)
    paths = np.empty((sends, length), dtype=np.int64)
    paths[:] = np.arange(length)
    return seconds_of(paths, alone, memory)


@compiled
def seconds_of(paths: Integers, costs: CostArrays, memory: int) -> float:
    """Iteration time of these paths served first come, first served; NEVER if the nodes get stuck."""
    starts = first_come_first_served(paths, costs, memory)
    last = 0.0
    for microbatch in range(len(paths)):
        end = starts[microbatch, -1] + costs.backward_s[paths[microbatch, 0]]
        if np.isnan(end):
            return NEVER
        last = max(last, end)
    return last


@compiled
def anneal_pipelines(
    problem: PipelineProblem,
    paths: Integers,
    seconds: Floats,
    best: Integers,
    temperature_s: float,
    steps: int,
    rng: Generator,
) -> None:
    """Anneal one path an origin, (origins, path length), in place; no two paths share a node.

    seconds (origins,) belongs to paths; best takes over paths that are better than it. A move changes two origins, so
    its cost does not grow with the nodes.
    """
    costs, memory, sends = problem.costs, problem.memory, problem.sends
    origins = len(paths)
    value = seconds.max() + MEAN_ORIGIN_WEIGHT * seconds.mean()
    best_value = NEVER
    for step in range(steps):
        i = int(rng.random() * origins) if step % 2 else np.argmax(seconds)
        j = int(rng.random() * origins)
        if i == j:
            continue
        first, second = paths[i].copy(), paths[j].copy()
        if not propose(first, second, problem.stage_of, rng):
            continue
        before_i, before_j = seconds[i], seconds[j]
        seconds[i] = pipeline_seconds(first, costs, memory, sends)
        seconds[j] = pipeline_seconds(second, costs, memory, sends)
        changed = seconds.max() + MEAN_ORIGIN_WEIGHT * seconds.mean()
        if changed <= value - temperature_s * np.log(1.0 - rng.random()):
            paths[i], paths[j], value = first, second, changed
            if value < best_value:
                best_value = value
                best[:] = paths
        else:
            seconds[i], seconds[j] = before_i, before_j


@compiled
def anneal_round(
    problem: RoundProblem,
    current: RoundSolution,
    best: RoundSolution,
    temperature_s: float,
    steps: int,
    rng: Generator,
) -> None:
    """Anneal a round's paths on the simulation of the iteration; best takes over what is better than it."""
    paths, stage_of, pair_sync_s = current.paths, current.stage_of, problem.pair_sync_s
    count = len(paths)
    all_paths = np.empty((count * problem.rounds, paths.shape[1]), dtype=np.int64)
    for _ in range(steps):
        i, j = int(rng.random() * count), int(rng.random() * count)
        if i == j:
            continue
        u = v = -1
        before_i, before_j = paths[i].copy(), paths[j].copy()
        if rng.random() < problem.relabel:
            u, v = int(rng.random() * len(stage_of)), int(rng.random() * len(stage_of))
            if stage_of[u] == stage_of[v]:
                continue
            exchange_nodes(paths, stage_of, u, v)
            sync_s = max(slowest_sync(u, stage_of, pair_sync_s), slowest_sync(v, stage_of, pair_sync_s))
            if sync_s > problem.sync_limit_s:
                exchange_nodes(paths, stage_of, u, v)
                continue
        else:
            first, second = paths[i].copy(), paths[j].copy()
            if not propose(first, second, stage_of, rng):
                continue
            if (first == paths[i]).all() and (second == paths[j]).all():
                continue
            paths[i], paths[j] = first, second
        write_rounds(paths, problem.memory, problem.rounds, all_paths)
        changed = seconds_of(all_paths, problem.costs, problem.memory)
        if changed <= current.seconds[0] - temperature_s * np.log(1.0 - rng.random()):
            current.seconds[0] = changed
            if changed < best.seconds[0]:
                best.paths[:], best.stage_of[:], best.seconds[0] = paths, stage_of, changed
        elif u >= 0:
            exchange_nodes(paths, stage_of, u, v)
        else:
            paths[i], paths[j] = before_i, before_j


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
def slowest_sync(node: int, stage_of: Integers, pair_sync_s: Floats) -> float:
    """Seconds of the sync over the slowest link between a node and the others of its stage."""
    slowest = 0.0
    for other in range(len(stage_of)):
        if other != node and stage_of[other] == stage_of[node]:
            slowest = max(slowest, pair_sync_s[stage_of[node], node, other])
    return slowest


@compiled
def write_rounds(paths: Integers, memory: int, rounds: int, all_paths: Integers) -> None:
    """Write all microbatches' paths, origin by origin; the i-th microbatch of an origin takes its path i mod memory."""
    sends = memory * rounds
    for row in range(len(all_paths)):
        all_paths[row] = paths[row // sends * memory + row % memory]
