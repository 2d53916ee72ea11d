"""Lower bounds on the iteration and the step that hold for any paths and any order on given stages."""

from __future__ import annotations

import math

import numpy as np

from skippipe.search.constraints import Reals
from skippipe.search.problem import Instance, Stages
from skippipe.search.round_trip import shortest_round_trips


def lower_bounds(instance: Instance, stages: Stages, sends: dict[int, int], path_length: int) -> tuple[float, float]:
    """Seconds that no iteration and no step can beat with these nodes of the stages, whatever the paths and orders.

    sends: microbatches of each origin. Two things take time however the paths go: an origin's chain of round trips, of
    which at most `memory` overlap, and the work of a stage, which CC3 gives its share of all visits.
    """
    costs = instance.costs
    trips = shortest_round_trips(instance, stages, path_length)
    ends = {origin: last_return(instance, origin, count, trips[origin]) for origin, count in sends.items()}
    iteration = max(ends.values())
    sync_s = instance.sync_s(stages)
    step = iteration + sync_s[0]
    visits = sum(sends.values()) * (path_length - 1) // (len(stages) - 1)
    origins = np.array(sorted(sends))
    for stage in range(1, len(stages)):
        nodes = np.array(stages[stage])
        others = np.array([node for members in stages[1:] for node in members if node not in stages[stage]] or nodes)
        arrive = costs.forward_s[origins].min() + min(
            costs.hop_s[np.ix_(origins, nodes)].min(),
            (costs.hop_s[np.ix_(origins, others)] + costs.forward_s[others]).min() if len(others) else math.inf,
        )
        leave = costs.hop_s[np.ix_(nodes, np.concatenate([origins, others]))].min() + costs.backward_s[origins].min()
        done = arrive + busiest_node_s(costs.forward_s[nodes] + costs.backward_s[nodes] + 2 * costs.task_gap_s, visits)
        done -= costs.task_gap_s
        iteration = max(iteration, done + leave)
        step = max(step, done + sync_s[stage])
    return float(iteration), float(max(step, iteration))


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


def busiest_node_s(visit_s: Reals, visits: int) -> float:
    """Seconds of work of the busiest node at least, however `visits` visits are spread; visit_s is (nodes,)."""
    low, high = visits / float((1 / visit_s).sum()), visits * float(visit_s.min())
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if np.floor(middle / visit_s + 1e-9).sum() >= visits else (middle, high)
    return low
