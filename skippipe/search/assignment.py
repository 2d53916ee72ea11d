"""Node to stage: DT-FM's genetic algorithm with cyclic moves (GCMA), its score compiled and updated in parts."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from skippipe.schedule.arrays import Flags, Floats, Integers
from skippipe.schedule.costs import GIB
from skippipe.search.compiled import compiled
from skippipe.search.matching import bottleneck, stage_order
from skippipe.search.problem import Instance, Stages
from skippipe.search.progress import Progress

TRIALS_A_CHUNK = 100_000
"""Work of one compiled call, in trials x nodes squared; the bar, the clock and Ctrl-C get their turn after it."""
FOUNDING_SHARE = 0.3
"""Part of the time in which the first population is made; large instances get a smaller one."""
CYCLES_A_TRIAL = 24
"""Cyclic moves tried on each offspring."""
PIPELINE_WEIGHT = 2.0
"""Score = data-parallel cost + 2 x pipeline cost (paper, node assignment)."""


def assign(
    instance: Instance, population: int, trials: int, seconds: float, rng: Generator, progress: Progress
) -> list[Stages]:
    """Assignments of nodes to stages in the order that the pipeline cost asks for, the best score first.

    A deterministic function of the generator as long as the trials end before the seconds do.
    """
    sizes = np.array(instance.stage_sizes, dtype=np.int64)
    hop_s = (instance.costs.hop_s + instance.costs.hop_s.T) / 2
    sync_pair_s = instance.pipeline.stage_bytes / (instance.bandwidth_gib_s * GIB)
    chunk = max(1, TRIALS_A_CHUNK // instance.nodes**2)
    values: list[float] = []
    first = [random_groups(sizes, rng)]
    with progress.phase("assignment", trials, seconds) as phase:
        while len(values) < len(first):
            values.append(score(first[-1], len(sizes), hop_s, sync_pair_s)[0])
            if len(first) < population and phase.fraction < FOUNDING_SHARE:
                first.append(random_groups(sizes, rng))
        groups, scores = np.array(first), np.array(values)
        while phase.left and len(first) > 1:
            count = min(chunk, phase.left)
            evolve(groups, scores, len(sizes), hop_s, sync_pair_s, count, rng)
            phase.advance(count, float(scores.min()), "score")
    ranked = dict.fromkeys(
        in_order(groups[i], len(sizes), hop_s, sync_pair_s) for i in np.argsort(scores, kind="stable")
    )
    return list(ranked)


def random_groups(sizes: Integers, rng: Generator) -> Integers:
    """Stage of each node, (nodes,), at random with the given sizes."""
    return rng.permutation(np.repeat(np.arange(len(sizes)), sizes))


def in_order(group: Integers, stages: int, hop_s: Floats, sync_pair_s: Floats) -> Stages:
    """The stages as lists of nodes, in the order of the pipeline cost's walk; stage 0 stays the first."""
    order = score(group, stages, hop_s, sync_pair_s)[1]
    return tuple(tuple(int(node) for node in np.flatnonzero(group == stage)) for stage in order)


def score(group: Integers, stages: int, hop_s: Floats, sync_pair_s: Floats) -> tuple[float, Integers]:
    """GCMA's score of an assignment in seconds, and the order of its stages; group is the stage of each node."""
    weight, sync = np.zeros((stages, stages)), np.zeros(stages)
    touched = np.ones(stages, dtype=np.bool_)
    update_parts(group, touched, hop_s, sync_pair_s, weight, sync)
    walk, order = stage_order(weight)
    return float(sync.max() + PIPELINE_WEIGHT * walk), order


@compiled
def update_parts(
    group: Integers, touched: Flags, hop_s: Floats, sync_pair_s: Floats, weight: Floats, sync: Floats
) -> None:
    """Work out again the matchings, (stages, stages), and syncs, (stages,), of the touched stages."""
    stages = len(sync)
    members = [np.flatnonzero(group == stage) for stage in range(stages)]
    for a in range(stages):
        if touched[a]:
            slowest = 0.0
            for x in members[a]:
                for y in members[a]:
                    if x != y:
                        slowest = max(slowest, sync_pair_s[x, y])
            sync[a] = slowest
        for b in range(a):
            if touched[a] or touched[b]:
                weight[a, b] = weight[b, a] = bottleneck(members[a], members[b], hop_s)


@compiled
def evolve(
    groups: Integers, scores: Floats, stages: int, hop_s: Floats, sync_pair_s: Floats, trials: int, rng: Generator
) -> None:
    """Breed `trials` offspring, improve each by cyclic moves, and put it in the place of its worse parent if better."""
    population = len(groups)
    weight, sync = np.zeros((stages, stages)), np.zeros(stages)
    everything = np.ones(stages, dtype=np.bool_)
    for _ in range(trials):
        mother, father = int(rng.random() * population), int(rng.random() * population)
        if mother == father:
            continue
        child = cross(groups[mother], groups[father], stages, rng)
        update_parts(child, everything, hop_s, sync_pair_s, weight, sync)
        value = sync.max() + PIPELINE_WEIGHT * stage_order(weight)[0]
        for _ in range(CYCLES_A_TRIAL):
            value = cyclic_move(child, value, hop_s, sync_pair_s, weight, sync, rng)
        worse = mother if scores[mother] >= scores[father] else father
        twin = False
        for other in range(population):
            twin |= abs(scores[other] - value) < 1e-9 and (groups[other] == child).all()
        if value < scores[worse] and not twin:
            groups[worse] = child
            scores[worse] = value


@compiled
def cross(mother: Integers, father: Integers, stages: int, rng: Generator) -> Integers:
    """A child that keeps the nodes on which both parents agree; the others change places among themselves."""
    nodes = len(mother)
    child = mother.copy()
    open_nodes = np.flatnonzero(mother != father)
    room = np.zeros(stages, dtype=np.int64)
    for node in open_nodes:
        room[mother[node]] += 1
    rng.shuffle(open_nodes)
    late = np.zeros(nodes, dtype=np.bool_)
    for node in open_nodes:
        wanted = father[node] if rng.random() < 0.5 else mother[node]
        if room[wanted] > 0:
            child[node] = wanted
            room[wanted] -= 1
        else:
            late[node] = True
    stage = 0
    for node in open_nodes:
        if late[node]:
            while room[stage] == 0:
                stage += 1
            child[node] = stage
            room[stage] -= 1
    return child


@compiled
def cyclic_move(
    group: Integers, value: float, hop_s: Floats, sync_pair_s: Floats, weight: Floats, sync: Floats, rng: Generator
) -> float:
    """Pass two or three nodes on around their stages if that lowers the score; returns the score."""
    nodes = len(group)
    a, b = int(rng.random() * nodes), int(rng.random() * nodes)
    c = int(rng.random() * nodes) if rng.random() < 0.4 else -1
    if group[a] == group[b] or (c >= 0 and (group[c] == group[a] or group[c] == group[b])):
        return value
    stage_a, stage_b = group[a], group[b]
    touched = np.zeros(len(sync), dtype=np.bool_)
    touched[stage_a] = touched[stage_b] = True
    stage_c = stage_a
    if c >= 0:
        stage_c = group[c]
        touched[stage_c] = True
        group[c] = stage_a
    group[a], group[b] = stage_b, stage_c
    changed_weight, changed_sync = weight.copy(), sync.copy()
    update_parts(group, touched, hop_s, sync_pair_s, changed_weight, changed_sync)
    changed = changed_sync.max() + PIPELINE_WEIGHT * stage_order(changed_weight)[0]
    if changed < value:
        weight[:], sync[:] = changed_weight, changed_sync
        return float(changed)
    group[a], group[b] = stage_a, stage_b
    if c >= 0:
        group[c] = stage_c
    return value
