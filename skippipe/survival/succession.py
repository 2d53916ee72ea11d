"""The plan for the living after nodes are lost: heirs of their tasks, and one order in time for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from skippipe.errors import UserError
from skippipe.schedule.arrays import Floats
from skippipe.schedule.costs import Costs, sync_seconds
from skippipe.schedule.plan import Plan, Task, make_plan, order_of, timed
from skippipe.schedule.validation import check_homes, check_memory, check_orders, check_paths, check_progress

HEIRS = "heirs"
"""What the solver's name of a plan begins with that was made of another one, for those who are left of it."""
LOAD_WEIGHT = 1.5
"""What a microbatch that an heir was already given counts, over the seconds that one takes of its time.

Two seconds on the original's nodes. By hops alone the nearest replica would get everything, by load alone a microbatch
may cross the slowest link.
"""

Stages = tuple[tuple[int, ...], ...]
Paths = tuple[tuple[int, ...], ...]


class NoHeirsError(Exception):
    """Nobody can take over the tasks of the lost within an iteration."""


class SlowHeirsError(NoHeirsError):
    """Whoever could would wait longer for slow links than it takes to do the iteration again on others."""


class StageLostError(NoHeirsError):
    """Stages of which no replica lives."""

    def __init__(self, stages: Sequence[int]) -> None:
        super().__init__(f"no living node holds stage {', '.join(map(str, stages))}")
        self.stages = tuple(stages)


def sources(plan: Plan) -> list[tuple[int, int]]:
    """Where each microbatch's batch is read, of the plan that a run began with: (part, number).

    The part is its origin's place in stage 0, the number its place among the origin's own. Both stay for ever, whoever
    inherits the microbatch.
    """
    part_of = {node: part for part, node in enumerate(plan.stages[0])}
    sent: Counter[int] = Counter()
    found = []
    for origin, *_ in plan.paths:
        found.append((part_of[origin], sent[origin]))
        sent[origin] += 1
    return found


def plan_of_the_living(
    plan: Plan, lost: Collection[int], costs: Costs, bandwidth_gib_s: Floats, stage_bytes: Sequence[float]
) -> Plan:
    """The plan for a takeover in the middle of an iteration of `plan`: nobody waits in a circle, whatever is done.

    The lost have no order. Expected times are those of an iteration that begins with this plan. bandwidth_gib_s is
    (nodes, nodes), stage_bytes what the sync of each stage moves. Raises StageLostError if a stage has nobody left.
    """
    stages = living_stages(plan, lost)
    paths = heirs(plan, lost, costs)
    inherited = replace(
        plan,
        stages=stages,
        paths=paths,
        order=order_of_the_living(plan, stages, paths, costs),
        sync_s=sync_of(stages, bandwidth_gib_s, stage_bytes),
        search={"solver": f"{HEIRS}, in the order of the plan before"},
    )
    return timed(inherited, costs, inherited.starts(costs))


def plan_of_what_follows(takeover: Plan, costs: Costs, memory: int) -> Plan:
    """The plan for the iterations after a takeover: the same stages and paths in the faster of two orders.

    The takeover's, if no node holds more than `memory` microbatches in it, or first come, first served. If neither will
    do, the takeover's all the same: memory is exceeded rather than nothing run.
    """
    try:
        served = plan_first_served(takeover.stages, takeover.paths, takeover.sync_s, costs, memory)
    except UserError:
        return takeover
    if served.expected_step_s <= takeover.expected_step_s or exceeds(takeover, memory):
        return served
    return takeover


def plan_first_served(stages: Stages, paths: Paths, sync_s: Sequence[float], costs: Costs, memory: int) -> Plan:
    """First come, first served, on the stages' nodes; UserError if they wait for each other for ever."""
    search = {"solver": f"{HEIRS}, first come, first served"}
    lists, rows = [list(stage) for stage in stages], np.array(paths, dtype=np.int64)
    served = make_plan(lists, rows, costs, memory, list(sync_s), search)
    return replace(served, order=order_of_members(served.stages, served.order))


def sync_of(stages: Stages, bandwidth_gib_s: Floats, stage_bytes: Sequence[float]) -> tuple[float, ...]:
    """Seconds of each stage's sync."""
    return tuple(
        sync_seconds(list(stage), bandwidth_gib_s, moved) for stage, moved in zip(stages, stage_bytes, strict=True)
    )


def exceeds(plan: Plan, memory: int) -> bool:
    """Whether a node holds more than `memory` microbatches at a time."""
    try:
        check_memory(plan, "the takeover", memory)
    except UserError:
        return True
    return False


def is_of_heirs(plan: Plan) -> bool:
    """Whether a plan was made of another one, and not searched for its nodes."""
    return str(plan.search.get("solver", "")).startswith(HEIRS)


def living_stages(plan: Plan, lost: Collection[int]) -> Stages:
    """The stages without the lost; StageLostError names those of which nobody is left."""
    stages = tuple(tuple(node for node in stage if node not in lost) for stage in plan.stages)
    if gone := [number for number, stage in enumerate(stages) if plan.stages[number] and not stage]:
        raise StageLostError(gone)
    return stages


def heirs(plan: Plan, lost: Collection[int], costs: Costs) -> Paths:
    """The paths with an heir in place of each lost node: a living replica of its stage, chosen anew per microbatch.

    It costs what the hops from and to its neighbours in the path take, forth and back, and LOAD_WEIGHT for what it was
    given before. Several that are lost in one path are replaced together, so that each is near the others' heirs.
    """
    stages, stage_of = living_stages(plan, lost), plan.stage_of()
    return_s = costs.hop_s + costs.hop_s.T
    load_s = load_seconds(costs)
    nothing = np.zeros_like(load_s)
    given = np.zeros(len(load_s), dtype=np.int64)
    paths = []
    for path in plan.paths:
        choices = [stages[stage_of[node]] if node in lost else (node,) for node in path]
        node_s = [load_s * given if node in lost else nothing for node in path]
        _, chosen = cheapest_round(choices, node_s, return_s)
        given[[heir for node, heir in zip(path, chosen, strict=True) if node in lost]] += 1
        paths.append(chosen)
    return tuple(paths)


def load_seconds(costs: Costs) -> Floats:
    """What each microbatch that a node was already given counts when another one is given, (nodes,)."""
    return LOAD_WEIGHT * (costs.forward_s + costs.backward_s + 2 * costs.task_gap_s)


def cheapest_round(
    choices: list[tuple[int, ...]], node_s: list[Floats], return_s: Floats
) -> tuple[float, tuple[int, ...]]:
    """The cheapest way through one node of each of the choices and back from the last to the first, where the loss is.

    node_s has what each node costs, (nodes,), for each of the choices, and return_s the way from node to node and back,
    (nodes, nodes). Of equally cheap ones the first by number.
    """
    rounds = []
    for first in choices[0]:
        ways: list[tuple[float, tuple[int, ...]]] = [(float(node_s[0][first]), (first,))]
        for here, more in zip(choices[1:], node_s[1:], strict=True):
            ways = [
                min((so_far + float(return_s[way[-1], node] + more[node]), (*way, node)) for so_far, way in ways)
                for node in here
            ]
        rounds += [(so_far + float(return_s[way[-1], first]), way) for so_far, way in ways]
    return min(rounds)


def order_of_the_living(plan: Plan, stages: Stages, paths: Paths, costs: Costs) -> dict[int, tuple[Task, ...]]:
    """The order of every node of the stages: its own and its inherited tasks, by the times that `plan` has for them.

    One order in time for all nodes: of all that is left to do, the first in it waits for nothing but what is done.
    """
    return order_of_members(stages, order_of(np.array(paths, dtype=np.int64), plan.starts(costs), len(costs.forward_s)))


def order_of_members(stages: Stages, order: dict[int, tuple[Task, ...]]) -> dict[int, tuple[Task, ...]]:
    """The order without nodes that are in no stage."""
    return {node: order[node] for node in sorted(node for stage in stages for node in stage)}


def check_living(plan: Plan, nodes: int) -> None:
    """Raise UserError if living nodes can't run the plan; not held is what a loss may break.

    That is evenness, memory, and how many stages are skipped at once, since more of them may be lost. A run has `nodes`
    nodes, of which the plan's are those with a stage. A stage may have nobody, if no path visits it.
    """
    where = "the view's plan"
    homes = check_homes(plan, where, nodes)
    check_paths(plan, where, len(plan.paths[0]) if plan.paths else 0, len(plan.stages))
    if strangers := plan.order.keys() - homes.keys():
        raise UserError(f"{where}: order names node {min(strangers)}, which is in no stage")
    check_orders(plan, where, nodes)
    check_progress(plan, where, plan.starts(unit_costs(nodes)))


def unit_costs(nodes: int) -> Costs:
    """Costs for a dry run: whether an order ends does not depend on them."""
    return Costs(np.ones(nodes), 1.0, 1.0, 0.0, np.zeros((nodes, nodes)))
