"""What SkipPipe is compared with: DT-FM's full pipelines, and DT-FM-skip's paths that skip at random."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from skippipe.errors import UserError
from skippipe.schedule import Plan
from skippipe.schedule.arrays import Floats, Integers
from skippipe.search.problem import Instance, Stages
from skippipe.search.rounds import every_round, iteration_s, plan_of, random_paths
from skippipe.search.solver import SolverOptions

MOST_DRAWS = 25
"""Random sets of paths that are drawn before it is said that none can be run."""


def solve_baseline(instance: Instance, options: SolverOptions) -> Plan:
    """DT-FM: full pipelines in stage order over bottleneck matchings; as many origins send as other stages have nodes.

    Each of them sends its share of the batch that all stage-0 nodes send in the other settings (paper, DT-FM*).
    """
    stages = instance.fixed_stages
    with options.progress.phase("baseline: full pipelines", 1, options.seconds) as phase:
        tails = match_tails(stages, instance.costs.hop_s)
        batch = len(stages[0]) * instance.pipeline.microbatches_per_node
        share, more = divmod(batch, len(tails))
        paths = np.repeat(tails, [share + (i < more) for i in range(len(tails))], axis=0)
        plan = plan_of(instance, paths, {"solver": "DT-FM: genetic assignment, bottleneck matchings"})
        phase.advance(1, plan.expected_iteration_s)
    return plan


def match_tails(stages: Stages, hop_s: Floats) -> Integers:
    """Full pipelines, (nodes of stage 1, stages): neighbouring stages matched one after the other, the sender last."""
    columns = [np.array(stages[1])]
    for stage in stages[2:]:
        following = np.array(stage)
        columns.append(following[bottleneck_assignment(hop_s[np.ix_(columns[-1], following)])])
    origins = np.array(stages[0])
    around = hop_s[np.ix_(origins, columns[0])].T + hop_s[np.ix_(columns[-1], origins)]
    return np.stack([origins[bottleneck_assignment(around)], *columns], axis=1)


def bottleneck_assignment(cost: Floats) -> Integers:
    """Column of each row, such that the largest cost is least and, among those, the sum; rows <= columns."""
    values = np.unique(cost)
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        rows, columns = linear_sum_assignment(cost > values[middle])
        low, high = (low, middle) if not (cost > values[middle])[rows, columns].any() else (middle + 1, high)
    penalty = cost.sum() + 1.0
    return np.asarray(linear_sum_assignment(np.where(cost > values[low], penalty, cost))[1], dtype=np.int64)


def solve_random(instance: Instance, options: SolverOptions) -> Plan:
    """DT-FM-skip: one draw of paths that skip at random under CC and the limit of each stage, blind to costs (paper).

    A draw on which the nodes wait for each other for ever is no schedule and is drawn again.
    """
    rng = np.random.default_rng(options.config.seed)
    with options.progress.phase("random: paths that skip", 1, options.seconds) as phase:
        for _ in range(MOST_DRAWS):
            paths = random_paths(instance, rng)
            seconds = iteration_s(instance, paths)
            if np.isfinite(seconds):
                phase.advance(1, seconds)
                return plan_of(instance, every_round(instance, paths), {"solver": "DT-FM-skip: a random draw"})
    raise UserError(f"every one of {MOST_DRAWS} random sets of paths makes nodes wait for each other; raise memory")
