"""A whole search: nodes to stages first, then every setting's paths on those stages, each with its lower bound."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.random import Generator

from skippipe.errors import UserError
from skippipe.schedule import Plan, Schedule
from skippipe.schedule.arrays import Integers
from skippipe.search.annealing import improve_round
from skippipe.search.assignment import assign
from skippipe.search.baselines import solve_baseline, solve_random
from skippipe.search.bounds import bounds_of_any_stages, bounds_of_given_stages
from skippipe.search.config import SearchConfig
from skippipe.search.joint.solver import solve_joint
from skippipe.search.partial import FIRST_PATH_STEPS, solve_ca_partial, solve_non_ca_partial
from skippipe.search.problem import Instance, Stages
from skippipe.search.progress import Phase, Progress
from skippipe.search.restarts import best_of_restarts, chains_of
from skippipe.search.rounds import iteration_s, start_paths
from skippipe.search.solver import Solver, SolverOptions

logger = logging.getLogger(__name__)

SOLVERS: dict[str, Solver] = {
    "baseline": solve_baseline,
    "random": solve_random,
    "non-ca-partial": solve_non_ca_partial,
    "ca-partial": solve_ca_partial,
    "joint": solve_joint,
}
"""The settings that there are, in the order in which they are solved; later ones may start from earlier plans."""

TIME_SHARES = {
    "assignment": 1.5,
    "own stages": 2.5,
    "baseline": 0.2,
    "random": 0.2,
    "non-ca-partial": 2.0,
    "ca-partial": 5.0,
    "joint": 12.0,
}
"""How the time budget is shared; what a part leaves over goes to those after it."""
DEFAULT_SHARE = 5.0
"""Share of a setting without an entry."""
BASELINES = ("baseline", "random")
"""Settings that stand on GCMA's best stages, by GCMA's score, whatever the method (paper: DT-FM*, DT-FM-skip)."""
CANDIDATES = 4
"""Assignments of GCMA that the simulation improves for a while; the best of them goes on."""
FIRST_PART = 0.2
"""Part of the moves that each candidate gets."""
PARTS = 1.0 + CANDIDATES * FIRST_PART
"""All parts together: each candidate's, and a whole one for the best of them."""
RELABEL = 0.2
"""Chance that a move exchanges two nodes of two stages while the stages are still open."""


def search(instance: Instance, config: SearchConfig, progress: Progress) -> Schedule:
    """Search the stages, if the instance leaves them open, and the plan of every setting; every plan validates."""
    for name in config.settings:
        if name not in SOLVERS:
            raise UserError(f"settings names {name!r}; known settings: {', '.join(SOLVERS)}")
    settings = [name for name in SOLVERS if name in (config.settings or SOLVERS)]
    own_stages = instance.stages is None and config.method == "ours" and not set(settings) <= set(BASELINES)
    parts = ["assignment"] * (instance.stages is None) + ["own stages"] * own_stages + settings
    share = time_shares(parts, config.time_budget_s)
    origin: dict[str, Any] = {"stages": "given"}
    placed, paths = instance, None
    if instance.stages is None:
        rng = np.random.default_rng(config.seed)
        ranked, trials = assign(instance, config.population, config.trials, share("assignment"), rng, progress)
        origin = {"stages": "GCMA", "trials": trials, "trials_asked": config.trials}
        instance = placed = instance.with_stages(ranked[0])
        if own_stages:
            placed, paths = choose_stages(instance, ranked, config, share("own stages"), rng, progress)
    plans: dict[str, Plan] = {}
    for setting in settings:
        assigned = instance.stages if own_stages else None
        options = SolverOptions(config, share(setting), paths, plans, progress, assigned)
        started = time.monotonic()
        own = own_stages and setting not in BASELINES
        plan = SOLVERS[setting](placed if own else instance, options)
        seconds = None if config.time_budget_s is None else round(time.monotonic() - started, 3)
        plans[setting] = with_record(instance, plan, config.seed, seconds)
        plans[setting].search.update(origin | ({"stages": "annealed on the simulation"} if own else {}))
        logger.info("%s: %.2f s", setting, plan.expected_iteration_s)
    schedule = instance.schedule(plans)
    schedule.validate()
    return schedule


def time_shares(parts: list[str], budget_s: float | None) -> Callable[[str], float]:
    """Seconds that a part gets when it begins: its share of what is left of the budget for it and those after it.

    Infinitely many without a budget: then no clock is looked at.
    """
    begin = time.monotonic()

    def share(part: str) -> float:
        if budget_s is None:
            return math.inf
        shares = [TIME_SHARES.get(name, DEFAULT_SHARE) for name in parts[parts.index(part) :]]
        return max(0.0, budget_s - (time.monotonic() - begin)) * shares[0] / sum(shares)

    return share


def choose_stages(
    instance: Instance, ranked: list[Stages], config: SearchConfig, seconds: float, rng: Generator, progress: Progress
) -> tuple[Instance, Integers]:
    """The instance with stages of our own, and paths of a round, (origins x memory, path length), that suit them.

    GCMA's score leaves the overlap of microbatches out, so its best assignments are improved on the simulation: two
    nodes change places if that shortens the iteration and leaves the sync within sync_slack x GCMA's.
    """
    most_sync_s = max(instance.sync_s(ranked[0])) * config.sync_slack
    choices = [instance.with_stages(stages) for stages in ranked if max(instance.sync_s(stages)) <= most_sync_s]

    def restart(
        _best: tuple[Instance, Integers] | None, number: int, rng: Generator, phase: Phase
    ) -> tuple[Instance, Integers]:
        few = choices[:CANDIDATES] if number == 0 else [choices[i] for i in rng.permutation(len(choices))[:CANDIDATES]]
        return tournament(few, rng, phase, most_sync_s)

    first, last, chains = int(FIRST_PATH_STEPS * PARTS), int(config.path_steps * PARTS), chains_of(config)

    def value_s(found: tuple[Instance, Integers]) -> float:
        return iteration_s(*found)

    return best_of_restarts(restart, value_s, first, last, seconds, chains, rng, progress, "own stages")


def tournament(choices: list[Instance], rng: Generator, phase: Phase, most_sync_s: float) -> tuple[Instance, Integers]:
    """The choice that goes furthest in a part of the phase, annealed in the rest of it; with its paths of a round."""

    def improved(placed: Instance, paths: Integers, part: float) -> tuple[Instance, Integers]:
        paths, stages = improve_round(placed, paths, rng, phase.part(part / PARTS), RELABEL, most_sync_s)
        return placed.with_stages(stages), paths

    pool = [improved(placed, start_paths(placed, placed.pipeline.memory, rng), FIRST_PART) for placed in choices]
    return improved(*min(pool, key=lambda entry: iteration_s(*entry)), 1.0)


def with_record(instance: Instance, plan: Plan, seed: int, seconds: float | None) -> Plan:
    """The plan with the seed, the seconds of its search (None: steps alone ended it) and the lower bounds beside it.

    lower_bound_s and lower_bound_step_s hold for any stages of the instance's sizes, the other two for the plan's own.
    """
    ended = "steps" if seconds is None else "time or steps, whichever came first: another run may differ"
    record: dict[str, Any] = {"seed": seed, "seconds": seconds, "ended_by": ended}
    record["lower_bound_s"], record["lower_bound_step_s"] = bounds_of_any_stages(instance, plan)
    of_stages = bounds_of_given_stages(instance, plan)
    record["lower_bound_of_stages_s"], record["lower_bound_of_stages_step_s"] = of_stages
    return replace(plan, search={**plan.search, **record})
