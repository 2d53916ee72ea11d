"""A schedule for some of the nodes alone, renumbered, and plans found on it back in the numbers of all."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from skippipe.schedule.arrays import Floats
from skippipe.schedule.plan import Plan
from skippipe.schedule.schedule import Schedule


def schedule_of(schedule: Schedule, nodes: Collection[int], name: str, plan: Plan) -> Schedule:
    """The schedule as if there were only these nodes, numbered in their order, with one setting: a plan of theirs."""
    kept = sorted(nodes)
    costs = schedule.costs

    def among(pairs: Floats) -> Floats:
        return pairs[np.ix_(kept, kept)]

    return replace(
        schedule,
        locations=tuple(schedule.locations[node] for node in kept),
        latency_ms=among(schedule.latency_ms),
        bandwidth_gib_s=among(schedule.bandwidth_gib_s),
        costs=replace(
            costs,
            forward_s=costs.forward_s[kept],
            hop_s=among(costs.hop_s),
            measured_loss_s=None if costs.measured_loss_s is None else costs.measured_loss_s[kept],
            link_busy_s=None if costs.link_busy_s is None else among(costs.link_busy_s),
            uplink_busy_s=None if costs.uplink_busy_s is None else among(costs.uplink_busy_s),
        ),
        settings={name: renumbered(plan, {node: place for place, node in enumerate(kept)})},
    )


def plan_for_all(plan: Plan, nodes: Collection[int]) -> Plan:
    """A plan of schedule_of's schedule in the numbers that its nodes have among all."""
    return renumbered(plan, dict(enumerate(sorted(nodes))))


def renumbered(plan: Plan, number: Mapping[int, int]) -> Plan:
    """The plan with other numbers for its nodes; nodes of a stage ascend."""
    return replace(
        plan,
        stages=tuple(tuple(sorted(number[node] for node in stage)) for stage in plan.stages),
        paths=tuple(tuple(number[node] for node in path) for path in plan.paths),
        order={number[node]: tasks for node, tasks in sorted(plan.order.items()) if node in number},
    )
