"""Sampled networks for a joint search that does not trust its links, and the trade it makes."""

from __future__ import annotations

import numpy as np

from skippipe.costs import Costs
from skippipe.errors import UserError
from skippipe.schedule import Plan, timed
from skippipe.search.joint_state import Floats
from skippipe.simulate import simulate_order

LARGEST_ERROR = 0.9


def link_scenarios(hop_s: Floats, error: float, count: int, seed: int) -> Floats:
    """The hops as given, then `count` samples of them, (1 + count, nodes, nodes); just the first for error 0.

    Each link, both ways alike, takes 1 - error to 1 + error of its time, uniformly. UserError for an impossible error.
    """
    if not 0 <= error <= LARGEST_ERROR:
        raise UserError(f"robust must be from 0 to {LARGEST_ERROR}, not {error}")
    if error == 0:
        return hop_s[None].copy()
    draws = np.random.default_rng(seed).uniform(-error, error, (count, *hop_s.shape))
    upper = np.triu(draws, 1)
    return np.concatenate([hop_s[None], hop_s * (1 + upper + upper.transpose(0, 2, 1))])


def mean_step_under_drift(plan: Plan, costs: Costs, error: float, count: int, seed: int) -> tuple[float, float]:
    """Mean and largest expected step in seconds of a plan whose orders are followed in `count` sampled networks."""
    order = plan.order_arrays(len(costs.forward_s))
    steps = []
    for hop_s in link_scenarios(costs.hop_s, error, count, seed)[1:]:
        drifted = Costs(costs.forward_s, costs.loss_factor, costs.backward_factor, costs.task_gap_s, hop_s)
        steps.append(timed(plan, drifted, simulate_order(plan.paths_array, drifted, *order)).expected_step_s)
    return float(np.mean(steps)), float(np.max(steps))
