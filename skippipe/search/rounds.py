"""The paths of one round: where a search starts, how rounds repeat, and how paths become a plan."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator

from skippipe.schedule import Plan
from skippipe.schedule.arrays import Floats, Integers
from skippipe.schedule.plan import make_plan
from skippipe.search.compiled import compiled, first_come_first_served
from skippipe.search.constraints import even_walks, stage_table
from skippipe.search.moves import propose, write_rounds
from skippipe.search.problem import Instance

SHUFFLES_A_PATH = 100
"""Random moves a path, under the rules, after which walks over the stages forget where they began."""


def start_paths(instance: Instance, visits: int, rng: Generator) -> Integers:
    """Random legal paths on which every node is visited `visits` times, (origins x visits, path length)."""
    stages = instance.fixed_stages
    walks = even_walks(instance.rules, len(stages), len(stages[0]) * visits, rng)
    paths = np.empty_like(walks)
    for stage, members in enumerate(stages):
        nodes = np.repeat(np.array(members), visits)
        paths[walks == stage] = nodes if stage == 0 else rng.permutation(nodes)
    return paths


def random_paths(instance: Instance, rng: Generator) -> Integers:
    """A round's paths, blind to costs, (origins x memory, path length): stages visited evenly, nodes as they fall."""
    stages, memory = instance.fixed_stages, instance.pipeline.memory
    paths = start_paths(instance, memory, rng)
    stage_of = stage_table(stages)
    shuffle(paths, stage_of, SHUFFLES_A_PATH * len(paths), rng)
    for stage, members in enumerate(stages[1:], start=1):
        chosen = stage_of[paths] == stage
        paths[chosen] = rng.choice(np.array(members), int(chosen.sum()))
    return paths


@compiled
def shuffle(paths: Integers, stage_of: Integers, moves: int, rng: Generator) -> None:
    """Make random legal moves, whatever they cost."""
    for _ in range(moves):
        i, j = int(rng.random() * len(paths)), int(rng.random() * len(paths))
        first, second = paths[i].copy(), paths[j].copy()
        if i != j and propose(first, second, stage_of, rng):
            paths[i], paths[j] = first, second


def every_round(instance: Instance, paths: Integers) -> Integers:
    """Paths of all microbatches, (origins x microbatches a node, path length), from those of a round.

    The i-th microbatch of an origin takes its path i mod memory; one path an origin stands for all of its microbatches.
    """
    pipeline = instance.pipeline
    if len(paths) == instance.stage_sizes[0]:
        paths = np.repeat(paths, pipeline.memory, axis=0)
    rounds = pipeline.microbatches_per_node // pipeline.memory
    all_paths = np.empty((len(paths) * rounds, paths.shape[1]), dtype=np.int64)
    write_rounds(paths, pipeline.memory, rounds, all_paths)
    return all_paths


def simulate(instance: Instance, all_paths: Integers) -> Floats:
    """First-come-first-served start of each step of all microbatches; NaN for those that never run."""
    return first_come_first_served(all_paths, instance.costs.arrays, instance.pipeline.memory)


def iteration_s(instance: Instance, paths: Integers) -> float:
    """Iteration time of a round's paths in seconds; infinite if the nodes get stuck."""
    all_paths = every_round(instance, paths)
    ends = simulate(instance, all_paths)[:, -1] + instance.costs.backward_s[all_paths[:, 0]]
    return float(np.inf if np.isnan(ends).any() else ends.max())


def plan_of(instance: Instance, all_paths: Integers, search: dict[str, Any]) -> Plan:
    """The plan of all microbatches' paths, in the order of first come, first served."""
    stages = instance.fixed_stages
    return make_plan(
        stages=[list(stage) for stage in stages],
        paths=all_paths,
        costs=instance.costs,
        memory=instance.pipeline.memory,
        sync_s=instance.sync_s(stages),
        search=search,
        starts=simulate(instance, all_paths),
    )
