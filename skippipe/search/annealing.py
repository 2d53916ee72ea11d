"""Simulated annealing around the compiled moves: temperatures, chunks, and the best paths so far."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from skippipe.schedule.arrays import Integers
from skippipe.search.constraints import stage_table
from skippipe.search.moves import (
    PipelineProblem,
    RoundProblem,
    RoundSolution,
    anneal_pipelines,
    anneal_round,
    pipeline_seconds,
)
from skippipe.search.problem import Instance, Stages
from skippipe.search.progress import Phase
from skippipe.search.rounds import iteration_s

HOTTEST, COLDEST = 0.03, 0.0005
"""Temperatures of the annealing over the time that is improved."""
CHUNKS = 100
"""Temperature steps; the clock, the bar and Ctrl-C get their turn after each."""
MOST_CHUNK_WORK = 200_000
"""Simulated tasks of one chunk at most, so that short budgets hold and Ctrl-C is heard at once on any instance."""


def improve_alone(
    instance: Instance, paths: Integers, memory: int, sends: int, rng: Generator, phase: Phase
) -> Integers:
    """Paths whose slowest one is as fast as annealing finds, each simulated alone with `sends` microbatches on it.

    One path an origin with memory and sends of the instance is exact, since no two origins then share a node; single
    microbatches (memory 1, sends 1) are blind to collisions.
    """
    costs = instance.costs.arrays
    problem = PipelineProblem(stage_table(instance.fixed_stages), costs, memory, sends)
    paths, best = paths.copy(), paths.copy()
    values = np.array([pipeline_seconds(path, costs, memory, sends) for path in paths])
    best_value, scale = float(values.max()), float(values.max())
    while phase.left:
        count = steps_of_chunk(phase, max(100, MOST_CHUNK_WORK // (sends * paths.shape[1])))
        candidate = best.copy()
        anneal_pipelines(problem, paths, values, candidate, temperature(phase.fraction) * scale, count, rng)
        value = max(pipeline_seconds(path, costs, memory, sends) for path in candidate)
        if value < best_value:
            best, best_value = candidate, value
        phase.advance(count, best_value)
    return best


def improve_round(
    instance: Instance,
    paths: Integers,
    rng: Generator,
    phase: Phase,
    relabel: float = 0.0,
    sync_limit_s: float = np.inf,
) -> tuple[Integers, Stages]:
    """Paths of a round, (origins x memory, path length), annealed on the simulation of the iteration; and stages.

    relabel: chance that a move exchanges two nodes of two stages; at 0 the stages stay what they are. sync_limit_s:
    the longest data-parallel sync of a stage that such a move may lead to.
    """
    memory = instance.pipeline.memory
    rounds = instance.pipeline.microbatches_per_node // memory
    problem = RoundProblem(instance.costs.arrays, memory, rounds, relabel, instance.pair_sync_s, sync_limit_s)
    scale, stage_of = iteration_s(instance, paths), stage_table(instance.fixed_stages)
    current, best = (RoundSolution(paths.copy(), stage_of.copy(), np.array([scale])) for _ in range(2))
    while phase.left:
        count = steps_of_chunk(phase, max(10, MOST_CHUNK_WORK // (len(paths) * rounds * paths.shape[1] * 2)))
        anneal_round(problem, current, best, temperature(phase.fraction) * scale, count, rng)
        phase.advance(count, float(best.seconds[0]))
    stages = range(len(instance.stage_sizes))
    return best.paths, tuple(tuple(np.flatnonzero(best.stage_of == stage).tolist()) for stage in stages)


def steps_of_chunk(phase: Phase, most: int) -> int:
    """Steps until the clock is looked at again."""
    return min(phase.left, -(-phase.steps // CHUNKS), most)


def temperature(fraction: float) -> float:
    """Temperature over time, falling geometrically, at a fraction of the annealing."""
    return float(HOTTEST * (COLDEST / HOTTEST) ** fraction)
