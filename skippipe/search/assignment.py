"""Node to stage: DT-FM's genetic algorithm with cyclic moves (GCMA), its score compiled and updated in parts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from skippipe.schedule.arrays import Flags, Floats, Integers
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


class Links(NamedTuple):
    """What GCMA's score knows of the links, in seconds."""

    hop_s: Floats
    """Mean of a hop forth and back, (nodes, nodes)."""
    pair_sync_s: Floats
    """Sync of each stage whose slowest link is this one, (stages, nodes, nodes)."""


class ScoreParts(NamedTuple):
    """What the score of an assignment is made of, in seconds; brought up to date for the stages that a move touches."""

    matching_s: Floats
    """Longest hop of the bottleneck matching of two stages, (stages, stages)."""
    sync_s: Floats
    """Data-parallel sync of each stage, (stages,)."""


class Assigned(NamedTuple):
    """What the genetic algorithm found."""

    ranked: list[Stages]
    """Assignments of nodes to stages in the order that the pipeline cost asks for, the best score first."""
    trials: int
    """Offspring that there was time for."""


def assign(
    instance: Instance, population: int, trials: int, seconds: float, rng: Generator, progress: Progress
) -> Assigned:
    """Breed assignments of nodes to stages until the trials or the seconds are over, whichever comes first.

    With infinitely many seconds a deterministic function of the generator.
    """
    sizes = np.array(instance.stage_sizes, dtype=np.int64)
    links = Links((instance.costs.hop_s + instance.costs.hop_s.T) / 2, instance.pair_sync_s)
    chunk = max(1, TRIALS_A_CHUNK // instance.nodes**2)
    values: list[float] = []
    first = [random_groups(sizes, rng)]
    with progress.phase("assignment", trials, seconds) as phase:
        while len(values) < len(first):
            values.append(score(first[-1], len(sizes), links)[0])
            if len(first) < population and phase.fraction < FOUNDING_SHARE:
                first.append(random_groups(sizes, rng))
        groups, scores = np.array(first), np.array(values)
        while phase.left and len(first) > 1:
            count = min(chunk, phase.left)
            evolve(groups, scores, len(sizes), links, count, rng)
            phase.advance(count, float(scores.min()), "score")
    ranked = dict.fromkeys(in_order(groups[i], len(sizes), links) for i in np.argsort(scores, kind="stable"))
    return Assigned(list(ranked), phase.done)


def random_groups(sizes: Integers, rng: Generator) -> Integers:
    """Stage of each node, (nodes,), at random with the given sizes."""
    return rng.permutation(np.repeat(np.arange(len(sizes)), sizes))


def in_order(group: Integers, stages: int, links: Links) -> Stages:
    """The stages as lists of nodes, in the order of the pipeline cost's walk; stage 0 stays the first."""
    order = score(group, stages, links)[1]
    return tuple(tuple(int(node) for node in np.flatnonzero(group == stage)) for stage in order)


@compiled
def score(group: Integers, stages: int, links: Links) -> tuple[float, Integers]:
    """GCMA's score of an assignment in seconds, and the order of its stages; group is the stage of each node."""
    parts = ScoreParts(np.zeros((stages, stages)), np.zeros(stages))
    update_parts(group, np.ones(stages, dtype=np.bool_), links, parts)
    return sum_parts(parts)


@compiled
def sum_parts(parts: ScoreParts) -> tuple[float, Integers]:
    """The score that these parts add up to, and the order of the stages."""
    walk_s, order = stage_order(parts.matching_s)
    return parts.sync_s.max() + PIPELINE_WEIGHT * walk_s, order


@compiled
def update_parts(group: Integers, touched: Flags, links: Links, parts: ScoreParts) -> None:
    """Work out again the matchings and syncs of the touched stages, (stages,)."""
    stages = len(parts.sync_s)
    members = [np.flatnonzero(group == stage) for stage in range(stages)]
    for a in range(stages):
        if touched[a]:
            slowest = 0.0
            for x in members[a]:
                for y in members[a]:
                    if x != y:
                        slowest = max(slowest, links.pair_sync_s[a, x, y])
            parts.sync_s[a] = slowest
        for b in range(a):
            if touched[a] or touched[b]:
                parts.matching_s[a, b] = parts.matching_s[b, a] = bottleneck(members[a], members[b], links.hop_s)


@compiled
def evolve(groups: Integers, scores: Floats, stages: int, links: Links, trials: int, rng: Generator) -> None:
    """Breed `trials` offspring, improve each by cyclic moves, and put it in the place of its worse parent if better."""
    population = len(groups)
    parts = ScoreParts(np.zeros((stages, stages)), np.zeros(stages))
    everything = np.ones(stages, dtype=np.bool_)
    for _ in range(trials):
        mother, father = int(rng.random() * population), int(rng.random() * population)
        if mother == father:
            continue
        child = cross(groups[mother], groups[father], stages, rng)
        update_parts(child, everything, links, parts)
        value = sum_parts(parts)[0]
        for _ in range(CYCLES_A_TRIAL):
            value = cyclic_move(child, value, links, parts, rng)
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
def cyclic_move(group: Integers, value: float, links: Links, parts: ScoreParts, rng: Generator) -> float:
    """Pass two or three nodes on around their stages if that lowers the score; returns the score."""
    nodes = len(group)
    a, b = int(rng.random() * nodes), int(rng.random() * nodes)
    c = int(rng.random() * nodes) if rng.random() < 0.4 else -1
    if group[a] == group[b] or (c >= 0 and (group[c] == group[a] or group[c] == group[b])):
        return value
    stage_a, stage_b = group[a], group[b]
    touched = np.zeros(len(parts.sync_s), dtype=np.bool_)
    touched[stage_a] = touched[stage_b] = True
    stage_c = stage_a
    if c >= 0:
        stage_c = group[c]
        touched[stage_c] = True
        group[c] = stage_a
    group[a], group[b] = stage_b, stage_c
    changed_parts = ScoreParts(parts.matching_s.copy(), parts.sync_s.copy())
    update_parts(group, touched, links, changed_parts)
    changed = sum_parts(changed_parts)[0]
    if changed < value:
        parts.matching_s[:], parts.sync_s[:] = changed_parts.matching_s, changed_parts.sync_s
        return float(changed)
    group[a], group[b] = stage_a, stage_b
    if c >= 0:
        group[c] = stage_c
    return value
