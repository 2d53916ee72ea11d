"""Setting `joint`: stages, paths and order searched together by several annealing chains, anytime and never worse."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import groupby

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
from skippipe.search.solver import SolverOptions


@dataclass(frozen=True)
class JointOptions:
    """How long and for what the joint search looks."""

    time_budget_s: float = 60.0
    """Most wall time."""
    iterations: int | None = None
    """Proposals of each chain; the result depends on the seed alone as long as the time suffices for them."""
    seed: int = 0
    workers: int = 2
    """Chains that run at the same time, one a core."""
    sync: bool = True
    """Whether the objective is expected_step_s; otherwise expected_iteration_s."""
    robust: float = 0.0
    """Relative error of the links that the objective averages over; 0 trusts them."""
    scenarios: int = 8
    """Sampled networks of a robust search."""
    move_parts: tuple[float, ...] = MOVE_PARTS
    """Probabilities of the kinds of moves, in the order of joint_moves.py."""
    focus: float = FOCUS
    """Part of the moves that touch the critical path."""


ROUNDS = ((0.6, (1.2, 0.7)), (0.2, (0.5, 0.3)), (0.2, (0.3, 0.15)))
"""Part of the budget and temperatures in seconds at its beginning, of even and odd chains; rounds share the best state.

Hotter rounds leave the warm start behind for good, colder ones never leave it (benchmarks/results/joint.md).
"""
COLD = 0.03
"""Temperature in seconds at the end of a round."""
SHORTEST_S = 0.1
"""Time that the joint search gets even where nothing is left of the budget."""
REFERENCE_S, REFERENCE_TASKS = 33.0, 270
"""Objective of the warm start and number of tasks that the temperatures are for; others are scaled."""


def solve_joint(instance: Instance, options: SolverOptions) -> Plan:
    """The `joint` setting for create_schedule.py, from the best plan found before it."""
    plans = [plan for plan in options.found.values() if plan.path_length == instance.pipeline.path_length]
    if not plans:
        raise UserError("setting joint starts from another one's plan; add ca-partial to settings")
    warm_start = min(plans, key=lambda plan: plan.expected_step_s)
    config, seconds = options.config, max(options.seconds, SHORTEST_S)
    joint_options = JointOptions(seconds, config.joint_steps, config.seed, robust=config.robust)
    return search_joint(instance, warm_start, joint_options, options.progress)


def search_joint(instance: Instance, warm_start: Plan, options: JointOptions, progress: Progress | None = None) -> Plan:
    """A plan of the warm start's stage sizes that is at least as good as it in the objective.

    Stopping `progress` ends the search with the best plan so far. UserError for a budget that can't be used.
    """
    if not options.time_budget_s > 0:
        raise UserError(f"time budget of the joint search must be above 0 s, not {options.time_budget_s}")
    costs, pipeline = instance.costs, instance.pipeline
    hop_s = link_scenarios(costs.hop_s, options.robust, options.scenarios, options.seed)
    sync_bytes = pipeline.stage_bytes if options.sync else 0
    problem = make_problem(hop_s, costs, pipeline.memory, warm_start, instance.bandwidth_gib_s, sync_bytes)
    start_s = simulate_order(warm_start.paths_array, costs, *warm_start.order_arrays(instance.nodes))
    chains = [
        Chain(problem, warm_start, start_s, options.seed * 1_000 + worker, options.move_parts, options.focus)
        for worker in range(options.workers)
    ]
    chains[0].compile()  # off the clock
    began = time.monotonic()
    run_rounds(chains, options, progress or Progress())
    best = min(chains, key=lambda chain: chain.best_s)
    paths, starts, stages = canonical(problem, *best.solution())
    search = {
        "solver": "joint annealing",
        "seed": options.seed,
        "seconds": round(time.monotonic() - began, 3),
        "simulations": int(sum(chain.counts[:, 0].sum() for chain in chains)),
    }
    sync_s = instance.sync_s(tuple(tuple(stage) for stage in stages))
    return make_plan(stages, paths, costs, pipeline.memory, sync_s, search, starts)


def run_rounds(chains: list[Chain], options: JointOptions, progress: Progress) -> None:
    """Anneal all chains round by round on threads of their own; each round starts from the best state of all."""
    stop = threading.Event()
    began, spent, scale = time.monotonic(), 0.0, chains[0].best_s / REFERENCE_S
    calm = min(1.0, REFERENCE_TASKS / len(chains[0].state.sequence))
    with ThreadPoolExecutor(len(chains)) as pool, progress.phase("joint", 1000, math.inf) as phase:
        for number, (part, heats) in enumerate(ROUNDS):
            if number:
                best = min(chains, key=lambda chain: chain.best_s)
                for chain in sorted(chains, key=lambda chain: chain is best):
                    chain.copy_from(best)
            spent += part
            iterations = None if options.iterations is None else int(options.iterations * part)
            until = began + options.time_budget_s * spent
            futures: list[Future[None]] = [
                pool.submit(chain.run, scale * max(COLD, calm * heats[i % 2]), scale * COLD, iterations, until, stop)
                for i, chain in enumerate(chains)
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
