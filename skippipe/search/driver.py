"""A whole search: nodes to stages first, then every setting's paths on those stages, each with its lower bound."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import numpy as np

from skippipe.errors import UserError
from skippipe.schedule import Plan, Schedule
from skippipe.schedule.arrays import Integers
from skippipe.search.annealing import improve_round
from skippipe.search.assignment import assign
from skippipe.search.baselines import solve_baseline, solve_random
from skippipe.search.bounds import bounds_of_any_stages, bounds_of_given_stages
from skippipe.search.config import SearchConfig
from skippipe.search.joint.solver import solve_joint
from skippipe.search.partial import solve_ca_partial, solve_non_ca_partial
from skippipe.search.problem import Instance
from skippipe.search.progress import Progress
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
    "assignment": 4.0,
    "baseline": 0.5,
    "random": 0.5,
    "non-ca-partial": 2.0,
    "ca-partial": 5.0,
    "joint": 12.0,
}
"""How the time budget is shared; what a part leaves over goes to those after it."""
DEFAULT_SHARE = 5.0
"""Share of a setting without an entry."""
CANDIDATES = 4
"""Assignments of GCMA that the simulation improves for a while; the best of them goes on."""
FIRST_PART = 0.2
"""Part of the moves that each candidate gets."""
RELABEL = 0.2
"""Chance that a move exchanges two nodes of two stages while the stages are still open."""


def search(instance: Instance, config: SearchConfig, progress: Progress) -> Schedule:
    """Search the stages, if the instance leaves them open, and the plan of every setting; every plan validates."""
    begin = time.monotonic()
    settings = config.settings or tuple(SOLVERS)
    parts = ([] if instance.stages else ["assignment"]) + list(settings)
    for name in settings:
        if name not in SOLVERS:
            raise UserError(f"settings names {name!r}; known settings: {', '.join(SOLVERS)}")

    def share(part: str) -> float:
        later = parts[parts.index(part) :]
        left = max(0.0, config.time_budget_s - (time.monotonic() - begin))
        return left * TIME_SHARES.get(part, DEFAULT_SHARE) / sum(TIME_SHARES.get(name, DEFAULT_SHARE) for name in later)

    paths: Integers | None = None
    if instance.stages is None:
        instance, paths = choose_stages(instance, config, share("assignment"), progress)
    plans: dict[str, Plan] = {}
    for setting in sorted(settings, key=list(SOLVERS).index):
        options = SolverOptions(config, share(setting), paths, plans, progress)
        started = time.monotonic()
        plan = SOLVERS[setting](instance, options)
        plans[setting] = with_record(instance, plan, config.seed, time.monotonic() - started)
        logger.info("%s: %.2f s", setting, plan.expected_iteration_s)
    schedule = instance.schedule(plans)
    schedule.validate()
    return schedule


def choose_stages(
    instance: Instance, config: SearchConfig, seconds: float, progress: Progress
) -> tuple[Instance, Integers]:
    """The instance with its stages, and paths of a round, (origins x memory, path length), that suit them.

    GCMA's score leaves the overlap of microbatches out, so its best assignments are improved on the simulation: two
    nodes change places if that shortens the iteration and leaves the sync within sync_slack x GCMA's.
    """
    rng = np.random.default_rng(config.seed)
    ranked = assign(instance, config.population, config.trials, seconds / 3, rng, progress)
    most = max(instance.sync_s(ranked[0])) * config.sync_slack
    choices = [instance.with_stages(stages) for stages in ranked if max(instance.sync_s(stages)) <= most][:CANDIDATES]
    pool = [(placed, start_paths(placed, instance.pipeline.memory, rng)) for placed in choices]

    def improved(placed: Instance, paths: Integers, part: float, name: str) -> tuple[Instance, Integers]:
        with progress.phase(f"assignment: {name}", int(config.path_steps * part), seconds * part / 2) as phase:
            paths, stages = improve_round(placed, paths, rng, phase, RELABEL, most)
        return placed.with_stages(stages), paths

    pool = [improved(*entry, FIRST_PART, f"candidate {i + 1} of {len(pool)}") for i, entry in enumerate(pool)]
    return improved(*min(pool, key=lambda entry: iteration_s(*entry)), 1.0, "the best of them")


def with_record(instance: Instance, plan: Plan, seed: int, seconds: float) -> Plan:
    """The plan with the seed, the seconds of its search and the lower bounds beside it.

    lower_bound_s and lower_bound_step_s hold for any stages of the instance's sizes, the other two for the plan's own.
    """
    record: dict[str, float] = {"seed": seed, "seconds": round(seconds, 3)}
    record["lower_bound_s"], record["lower_bound_step_s"] = bounds_of_any_stages(instance, plan)
    of_stages = bounds_of_given_stages(instance, plan)
    record["lower_bound_of_stages_s"], record["lower_bound_of_stages_step_s"] = of_stages
    return replace(plan, search={**plan.search, **record})
