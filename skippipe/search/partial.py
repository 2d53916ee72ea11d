"""SkipPipe's two settings: cost-aware paths under CC and TC1, without and with collision avoidance (TC2)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from skippipe.errors import UserError
from skippipe.schedule import Plan
from skippipe.schedule.arrays import Integers
from skippipe.search.annealing import improve_alone, improve_round
from skippipe.search.conflict_search import ConflictSearch
from skippipe.search.problem import Instance
from skippipe.search.progress import Phase
from skippipe.search.restarts import best_of_restarts, chains_of
from skippipe.search.rounds import every_round, iteration_s, plan_of, start_paths
from skippipe.search.solver import SolverOptions

STARTS = 4
"""Annealed starts of the collision-blind setting, beside the one of conflict-based search."""
CONFLICT_SHARE, PIPELINE_SHARE = 0.15, 0.25
"""Parts of a setting's time for each conflict-based search, and for paths shared by an origin's microbatches."""
PAPER_SHARE = 0.5
"""The same if nothing else is done: ca-partial searches twice."""
FIRST_PIPELINE_STEPS, FIRST_PATH_STEPS = 40_000, 100_000
"""Moves of the first generation, on paths that an origin's microbatches share and on a path for each microbatch."""
STEPS_FOR_NODES = 20
"""pipeline_steps are for this many nodes; a move costs the same on any number, so larger instances get more."""


def solve_non_ca_partial(instance: Instance, options: SolverOptions) -> Plan:
    """SkipPipe without TC2: short round trips under CC and TC1; the simulation picks the best of several solutions."""
    rng = np.random.default_rng(options.config.seed)
    name, seconds = "non-ca-partial", options.seconds
    searched = conflict_search(instance, options, rng, False, False, f"{name}: conflict search")
    if options.config.method == "paper":
        return best_of_paper(instance, [searched], "conflict-based search under TC1")
    candidates = [] if searched is None else [searched]
    for start in range(STARTS):
        if candidates and options.progress.stopped:
            break
        paths = start_paths(instance, instance.pipeline.memory, rng)
        part = seconds * (1 - CONFLICT_SHARE) / STARTS
        title = f"{name}: start {start + 1} of {STARTS}"
        with options.progress.phase(title, options.config.pipeline_steps, part) as phase:
            candidates.append(improve_alone(instance, paths, 1, 1, rng, phase))
    best = min(candidates, key=lambda paths: iteration_s(instance, paths))
    solver = "conflict-based search under TC1" if best is searched else "round trips annealed under TC1"
    return plan_of(instance, every_round(instance, best), {"solver": solver})


def solve_ca_partial(instance: Instance, options: SolverOptions) -> Plan:
    """SkipPipe: the same, aware of collisions (TC2); never worse than the collision-blind plan if that was found.

    First one path an origin, as the original coarsens its paths, then one path a microbatch.
    """
    rng = np.random.default_rng(options.config.seed)
    name = "ca-partial"
    memory, sends = instance.pipeline.memory, instance.pipeline.microbatches_per_node

    searched = conflict_search(instance, options, rng, True, True, f"{name}: conflict search, origins")
    if options.config.method == "paper":
        single = conflict_search(instance, options, rng, False, True, f"{name}: conflict search, microbatches")
        return best_of_paper(instance, [searched, single], "conflict-based search under TC1 and TC2")
    start = start_paths(instance, 1, rng) if searched is None else searched
    steps = options.config.pipeline_steps * -(-instance.nodes // STEPS_FOR_NODES)

    def alone(best: Integers | None, _number: int, rng: Generator, phase: Phase) -> Integers:
        return improve_alone(instance, start if best is None else best, memory, sends, rng, phase)

    several = -(-instance.nodes // STEPS_FOR_NODES)
    title = f"{name}: one path an origin"
    shared = annealed(instance, options, alone, (FIRST_PIPELINE_STEPS * several, steps), PIPELINE_SHARE, rng, title)
    searched = conflict_search(instance, options, rng, False, True, f"{name}: conflict search, microbatches")
    known = [np.repeat(shared, memory, axis=0), searched, options.start]
    best = min((paths for paths in known if paths is not None), key=lambda paths: iteration_s(instance, paths))
    known_best, share = best, 1 - 2 * CONFLICT_SHARE - PIPELINE_SHARE

    def each(best: Integers | None, _number: int, rng: Generator, phase: Phase) -> Integers:
        return improve_round(instance, known_best if best is None else best, rng, phase)[0]

    title = f"{name}: one path a microbatch"
    paths = annealed(instance, options, each, (FIRST_PATH_STEPS, options.config.path_steps), share, rng, title)
    plan = plan_of(instance, every_round(instance, paths), {"solver": "conflict-based search and annealing under TC2"})
    blind = options.found.get("non-ca-partial")
    if blind is not None and blind.stages == plan.stages and blind.expected_iteration_s < plan.expected_iteration_s:
        return plan_of(instance, blind.paths_array, {"solver": blind.search["solver"]})
    return plan


def annealed(
    instance: Instance,
    options: SolverOptions,
    anneal: Callable[[Integers | None, int, Generator, Phase], Integers],
    steps: tuple[int, int],
    share: float,
    rng: Generator,
    name: str,
) -> Integers:
    """The best paths of restarts of an annealing in a share of the setting's time; steps at first and at most."""
    chains = chains_of(options.config)

    def value_s(paths: Integers) -> float:
        return iteration_s(instance, paths)

    return best_of_restarts(anneal, value_s, *steps, options.seconds * share, chains, rng, options.progress, name)


def best_of_paper(instance: Instance, found: list[Integers | None], solver: str) -> Plan:
    """The plan that the simulation likes best of what the conflict-based searches found (paper, high-level search).

    UserError if they found nothing.
    """
    paths = [entry for entry in found if entry is not None]
    if not paths:
        raise UserError(f"{solver} found no paths; raise constraint_sets or time_budget_s, or choose method ours")
    best = min(paths, key=lambda entry: iteration_s(instance, entry))
    return plan_of(instance, every_round(instance, best), {"solver": solver})


def conflict_search(
    instance: Instance, options: SolverOptions, rng: Generator, shared: bool, aware: bool, name: str
) -> Integers | None:
    """The best paths of one conflict-based search, (origins or microbatches of a round, path length), or None."""
    share = PAPER_SHARE if options.config.method == "paper" else CONFLICT_SHARE
    with options.progress.phase(name, options.config.constraint_sets, options.seconds * share) as phase:
        return ConflictSearch(instance, shared, aware, rng).run(phase)
