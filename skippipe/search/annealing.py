"""Simulated annealing around the compiled moves of pipelines.py: temperatures, chunks, restarts."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from skippipe.schedule.arrays import Integers
from skippipe.schedule.costs import GIB
from skippipe.search.constraints import stage_table
from skippipe.search.moves import anneal_pipelines, anneal_round, pipeline_seconds
from skippipe.search.problem import Instance, Stages
from skippipe.search.progress import Progress
from skippipe.search.rounds import iteration_s

HOTTEST, COLDEST = 0.03, 0.0005
"""Temperatures of the annealing over the time that is improved."""
CHUNKS = 100
"""Temperature steps; the clock, the bar and Ctrl-C get their turn after each."""
MOST_CHUNK_WORK = 2_000_000
"""Simulated tasks of one chunk at most, so that Ctrl-C is heard within a second or so on any instance."""


def improve_alone(
    instance: Instance, paths: Integers, memory: int, sends: int, steps: int, seconds: float, rng: Generator,
    progress: Progress, name: str,
) -> Integers:  # fmt: skip
    """Paths whose slowest one is as fast as annealing finds, each simulated alone with `sends` microbatches on it.

    One path an origin with memory and sends of the instance is exact, since no two origins then share a node; single
    microbatches (memory 1, sends 1) are blind to collisions.
    """
    costs, stage_of = instance.costs, stage_table(instance.fixed_stages)
    times = (costs.forward_s, costs.loss_s, costs.backward_s, costs.hop_s, costs.task_gap_s)
    paths, best = paths.copy(), paths.copy()
    values = np.array([pipeline_seconds(path, *times, memory, sends) for path in paths])
    best_value, scale = float(values.max()), float(values.max())
    with progress.phase(name, steps, seconds) as phase:
        while phase.left:
            count = min(phase.left, -(-steps // CHUNKS), max(100, MOST_CHUNK_WORK // (sends * paths.shape[1])))
            candidate = best.copy()
            anneal_pipelines(
                paths, values, candidate, stage_of, *times, memory, sends, heat(phase.fraction) * scale, count, rng
            )
            value = max(pipeline_seconds(path, *times, memory, sends) for path in candidate)
            if value < best_value:
                best, best_value = candidate, value
            phase.advance(count, best_value)
    return best


def improve_round(
    instance: Instance, paths: Integers, steps: int, seconds: float, rng: Generator, progress: Progress, name: str,
    relabel: float = 0.0, sync_limit_s: float = np.inf,
) -> tuple[Integers, Stages]:  # fmt: skip
    """Paths of a round, (origins x memory, path length), annealed on the simulation of the whole iteration; and stages.

    relabel: chance that a move exchanges two nodes of two stages; at 0 the stages stay what they are. sync_limit_s:
    the longest data-parallel sync of a stage that such a move may lead to.
    """
    costs, pipeline, stage_of = instance.costs, instance.pipeline, stage_table(instance.fixed_stages)
    times = (costs.forward_s, costs.loss_s, costs.backward_s, costs.hop_s, costs.task_gap_s)
    sync_pair_s = pipeline.stage_bytes / (instance.bandwidth_gib_s * GIB)
    rounds = pipeline.microbatches_per_node // pipeline.memory
    paths, best, best_stage_of = paths.copy(), paths.copy(), stage_of.copy()
    current = best_seconds = scale = iteration_s(instance, paths)
    with progress.phase(name, steps, seconds) as phase:
        while phase.left:
            work = len(paths) * rounds * paths.shape[1] * 2
            count = min(phase.left, -(-steps // CHUNKS), max(10, MOST_CHUNK_WORK // work))
            current, best_seconds = anneal_round(
                paths, current, best, best_seconds, stage_of, best_stage_of, relabel, sync_pair_s,
                sync_limit_s, *times, pipeline.memory, rounds,
                heat(phase.fraction) * scale, count, rng,
            )  # fmt: skip
            phase.advance(count, best_seconds)
    stages = range(len(instance.stage_sizes))
    return best, tuple(tuple(np.flatnonzero(best_stage_of == stage).tolist()) for stage in stages)


def heat(fraction: float) -> float:
    """Temperature over time, falling geometrically, at a fraction of the annealing."""
    return float(HOTTEST * (COLDEST / HOTTEST) ** fraction)
