"""Setting `joint`: stages, paths and order searched together by several annealing chains, anytime and never worse."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np

from skippipe.errors import UserError
from skippipe.schedule import Plan
from skippipe.schedule.arrays import Floats, Integers
from skippipe.schedule.plan import make_plan
from skippipe.schedule.simulate import simulate_order
from skippipe.search.joint.chain import FOCUS, MOVE_PARTS, Chain
from skippipe.search.joint.state import Problem, link_scenarios, make_problem
from skippipe.search.problem import Instance
from skippipe.search.progress import Progress
from skippipe.search.restarts import chains_of
from skippipe.search.solver import SolverOptions


@dataclass(frozen=True)
class JointOptions:
    """How long and for what the joint search looks."""

    time_budget_s: float = 60.0
    """Most wall time."""
    iterations: int | None = None
    """Proposals of each chain; with an infinite time budget the seed alone then decides the result."""
    seed: int = 0
    """Seed of every random choice."""
    sync: bool = True
    """Whether the objective is expected_step_s; otherwise expected_iteration_s."""
    robust: float = 0.0
    """Relative error of the links that the objective averages over; 0 trusts them."""
    move_parts: tuple[float, ...] = MOVE_PARTS
    """Probabilities of the kinds of moves, in the order in which moves.py numbers them."""
    focus: float = FOCUS
    """Part of the moves that touch the critical path."""
    chains: int = 2
    """Chains that run at the same time, one a thread."""


class Cooling(NamedTuple):
    """One run of all chains from hot to cold."""

    part: float
    """Part of the budget."""
    hot_s: tuple[float, float]
    """Temperatures at its beginning, in seconds, of even and odd chains."""


COOLINGS = (Cooling(0.6, (1.2, 0.7)), Cooling(0.2, (0.5, 0.3)), Cooling(0.2, (0.3, 0.15)))
"""One after the other, each from the best solution of those before.

Hotter ones leave the warm start behind for good, colder ones never leave it (benchmarks/results/joint.md).
"""
COLD_S = 0.03
"""Temperature in seconds at the end of a cooling."""
SCENARIOS = 8
"""Sampled networks of a robust search."""
SHORTEST_S = 0.1
"""Time that the joint search gets even if nothing is left of the budget."""
REFERENCE_S, REFERENCE_TASKS = 33.0, 270
"""Objective of the warm start and number of tasks that the temperatures are for; others are scaled."""


def solve_joint(instance: Instance, options: SolverOptions) -> Plan:
    """The `joint` setting for create_schedule.py, from the best plan found before it."""
    plans = [plan for plan in options.found.values() if plan.path_length == instance.pipeline.path_length]
    if not plans:
        raise UserError("setting joint starts from another one's plan; add ca-partial to settings")
    starts = [min(plans, key=lambda plan: plan.expected_step_s)]
    if options.assigned is not None:
        starts += moved(instance, starts[0], options.assigned)
    config, seconds = options.config, max(options.seconds, SHORTEST_S)
    joint_options = JointOptions(
        seconds, config.joint_steps, config.seed, robust=config.robust, chains=chains_of(config)
    )
    warm_start, *others = sorted(starts, key=lambda plan: plan.expected_step_s)
    return search_joint(instance, warm_start, joint_options, options.progress, others)


def moved(instance: Instance, plan: Plan, stages: Sequence[Sequence[int]]) -> list[Plan]:
    """The plan with other nodes in its stages, first come, first served; none if its nodes then wait for ever.

    Stages annealed for the iteration may all have a long sync: no exchange of two nodes shortens the step then, before
    most of them are made. GCMA's stages have a short one.
    """
    there = {
        old: new for olds, news in zip(plan.stages, stages, strict=True) for old, new in zip(olds, news, strict=True)
    }
    paths = np.array([[there[node] for node in path] for path in plan.paths])
    lists, sync_s = [list(stage) for stage in stages], instance.sync_s(tuple(tuple(stage) for stage in stages))
    try:
        return [make_plan(lists, paths, instance.costs, instance.pipeline.memory, sync_s, {"solver": "moved"})]
    except UserError:
        return []


def search_joint(
    instance: Instance,
    warm_start: Plan,
    options: JointOptions,
    progress: Progress | None = None,
    others: Sequence[Plan] = (),
) -> Plan:
    """A plan of the warm start's stage sizes that is at least as good as it in the objective.

    Chains beside the first start in turns from `others`, plans of the same sizes, and from the warm start. Stopping
    `progress` ends the search with the best plan so far. UserError for a budget that can't be used.
    """
    if not options.time_budget_s > 0:
        raise UserError(f"time budget of the joint search must be above 0 s, not {options.time_budget_s}")
    costs, pipeline = instance.costs, instance.pipeline
    hop_s = link_scenarios(costs.hop_s, options.robust, SCENARIOS, options.seed)
    pair_sync_s = instance.pair_sync_s * options.sync
    problem = make_problem(hop_s, costs, pipeline.memory, warm_start, pair_sync_s)
    plans = [warm_start, *others]
    chains = []
    for number in range(options.chains):
        plan = plans[number % len(plans)]
        start_s = simulate_order(plan.paths_array, costs, *plan.order_arrays(instance.nodes))
        seed = options.seed * 1_000 + number
        chains.append(Chain(problem, plan, start_s, seed, options.move_parts, options.focus))
    chains[0].compile()  # off the clock
    cool(chains, options, progress or Progress())
    best = min(chains, key=lambda chain: chain.best_s)
    paths, starts, stages = canonical(problem, *best.solution())
    search = {
        "solver": "joint annealing",
        "seed": options.seed,
        "simulations": sum(chain.simulations for chain in chains),
    }
    sync_s = instance.sync_s(tuple(tuple(stage) for stage in stages))
    return make_plan(stages, paths, costs, pipeline.memory, sync_s, search, starts)


def cool(chains: list[Chain], options: JointOptions, progress: Progress) -> None:
    """Run all coolings with every chain on a thread of its own; each starts from the best solution of all chains."""
    stop = threading.Event()
    began, spent, scale = time.monotonic(), 0.0, chains[0].best_s / REFERENCE_S
    calm = min(1.0, REFERENCE_TASKS / len(chains[0].walk.state.sequence))
    with ThreadPoolExecutor(len(chains)) as pool, progress.phase("joint", 1000, math.inf) as phase:
        for number, (part, hot_s) in enumerate(COOLINGS):
            if number:
                best = min(chains, key=lambda chain: chain.best_s)
                for chain in sorted(chains, key=lambda chain: chain is best):
                    chain.copy_from(best)
            spent += part
            iterations = None if options.iterations is None else int(options.iterations * part)
            until = began + options.time_budget_s * spent
            hottest_s = [scale * max(COLD_S, calm * hot_s[i % 2]) for i in range(len(chains))]
            futures: list[Future[None]] = [
                pool.submit(chain.run, begin_s, scale * COLD_S, iterations, until, stop)
                for chain, begin_s in zip(chains, hottest_s, strict=True)
            ]
            while wait(futures, timeout=0.1).not_done:
                phase.advance(0, min(chain.best_s for chain in chains))
                if progress.stopped:
                    stop.set()
            for future in futures:
                future.result()
            phase.advance(int(1000 * part), min(chain.best_s for chain in chains))


def canonical(
    problem: Problem, node_of_slot: Integers, paths: Integers, starts: Floats
) -> tuple[Integers, Floats, list[list[int]]]:
    """Paths in nodes and starts, sorted by origin and first start; stages as sorted lists of nodes."""
    in_nodes = node_of_slot[paths]
    ranks = np.lexsort((starts[:, 0], in_nodes[:, 0]))
    slots = range(len(node_of_slot))
    stages = [
        sorted(int(node_of_slot[slot]) for slot in group)
        for _, group in groupby(slots, key=lambda slot: int(problem.stage_of_slot[slot]))
    ]
    return in_nodes[ranks], starts[ranks], stages
