"""Lower bounds on the iteration and the step: for any stages of the given sizes, and closer ones for given stages.

Whatever the paths and orders, two things take time: an origin's chain of round trips, of which at most `memory`
overlap, and the work of a stage, which CC3 gives its share of all visits.
"""

from __future__ import annotations

import math

import numpy as np

from skippipe.schedule import Plan
from skippipe.schedule.arrays import Floats
from skippipe.search.problem import Instance
from skippipe.search.round_trip import shortest_round_trips


def bounds_of_given_stages(instance: Instance, plan: Plan) -> tuple[float, float]:
    """Seconds that no iteration and no step can beat with the plan's stages and what its origins send."""
    costs, stages, sends = instance.costs, plan.stages, plan.sends
    trips = shortest_round_trips(instance, stages, plan.path_length)
    iteration = max(last_return(instance, origin, count, trips[origin]) for origin, count in sends.items())
    sync_s = instance.sync_s(stages)
    step = 0.0
    visits = visits_of_a_stage(plan)
    origins = np.array(sorted(sends))
    for stage in range(1, len(stages)):
        nodes = np.array(stages[stage])
        others = np.array([node for members in stages[1:] for node in members if node not in stages[stage]], dtype=int)
        arrive = costs.forward_s[origins].min() + min(
            costs.hop_s[np.ix_(origins, nodes)].min(),
            (costs.hop_s[np.ix_(origins, others)] + costs.forward_s[others]).min() if len(others) else math.inf,
        )
        leave = costs.hop_s[np.ix_(nodes, np.concatenate([origins, others]))].min() + costs.backward_s[origins].min()
        done = arrive + busiest_node_s(visit_seconds(instance)[nodes], visits) - costs.task_gap_s
        iteration = max(iteration, done + leave)
        step = max(step, done + sync_s[stage])
    return float(iteration), float(max(step, iteration + sync_s[0]))


def bounds_of_any_stages(instance: Instance, plan: Plan) -> tuple[float, float]:
    """Seconds that no iteration and no step can beat however the nodes are put into stages of the instance's sizes.

    Takes from the plan its path length and how many microbatches its origins send, not which nodes these are.
    """
    costs, sizes, sends = instance.costs, np.array(instance.stage_sizes), sorted(plan.sends.values())
    trips = cheapest_round_trips(instance, plan.path_length)
    chain = max(
        np.sort([last_return(instance, node, count, trips[node]) for node in range(instance.nodes)])[senders - 1]
        for count, senders in ((count, sum(other >= count for other in sends)) for count in set(sends))
    )
    visits = visits_of_a_stage(plan)
    fastest = np.sort(visit_seconds(instance))
    hop = costs.hop_s[~np.eye(instance.nodes, dtype=bool)].min()
    arrive, leave = costs.forward_s.min() + hop - costs.task_gap_s, hop + costs.backward_s.min()
    everyone = arrive + busiest_node_s(fastest[: sizes[1:].sum()], visits * (len(sizes) - 1))
    done = np.array([arrive + busiest_node_s(fastest[:size], visits) for size in sizes])
    iteration = done[0] = max(chain, everyone + leave)
    sync_s = least_sync_seconds(instance)
    step = max(iteration + np.sort(sync_s[0])[sizes[0] - 1], (done[:, None] + sync_s).min(axis=0).max())
    return float(iteration), float(step)


def visits_of_a_stage(plan: Plan) -> int:
    """Visits that CC3 gives every stage but 0, rounded down."""
    return len(plan.paths) * (plan.path_length - 1) // (len(plan.stages) - 1)


def visit_seconds(instance: Instance) -> Floats:
    """Seconds that a visit keeps each node busy, (nodes,)."""
    return instance.costs.forward_s + instance.costs.backward_s + 2 * instance.costs.task_gap_s


def cheapest_round_trips(instance: Instance, path_length: int) -> Floats:
    """Seconds of a round trip from each node at least, over whatever nodes, (nodes,).

    A path is a cycle of different nodes that is walked twice; each of them has two neighbours, and half of its two
    cheapest links, summed over the cheapest nodes, is no more than the links of any cycle.
    """
    costs = instance.costs
    links = costs.hop_s + costs.hop_s.T
    np.fill_diagonal(links, np.inf)
    second = min(1, path_length - 2, instance.nodes - 2)
    cheapest = np.partition(links, [0, second], axis=1)
    share = (cheapest[:, 0] + cheapest[:, second]) / 2 + costs.forward_s + costs.backward_s
    least = np.sort(share)[:path_length]
    others = least.sum() - np.minimum(share, least[-1])
    return np.asarray(share + others + costs.loss_s)


def least_sync_seconds(instance: Instance) -> Floats:
    """Seconds of the sync of a stage of each size that holds a node, with its best partners, (stages, nodes)."""
    # The node itself comes first, with 0 s, then its partners by the link to them.
    by_partner = np.sort(instance.pair_sync_s, axis=2)
    return np.array([by_partner[stage, :, size - 1] for stage, size in enumerate(instance.stage_sizes)])


def last_return(instance: Instance, origin: int, count: int, trip_s: float) -> float:
    """Earliest end of an origin's last microbatch if each needs at least trip_s from its first forward to its end.

    The starts are a forward apart, the ends a backward apart, and a start waits for the end `memory` places before it.
    """
    costs, memory = instance.costs, instance.pipeline.memory
    ends: list[float] = []
    start = -math.inf
    for i in range(count):
        start = max(0.0, start + costs.forward_s[origin] + costs.task_gap_s)
        if i >= memory:
            start = max(start, ends[i - memory] + costs.task_gap_s)
        end = start + trip_s
        if ends:
            end = max(end, ends[-1] + costs.task_gap_s + costs.backward_s[origin])
        ends.append(float(end))
    return ends[-1]


def busiest_node_s(visit_s: Floats, visits: int) -> float:
    """Seconds of work of the busiest node at least, however `visits` visits are spread; visit_s is (nodes,)."""
    low, high = visits / float((1 / visit_s).sum()), visits * float(visit_s.min())
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if np.floor(middle / visit_s + 1e-9).sum() >= visits else (middle, high)
    return low
