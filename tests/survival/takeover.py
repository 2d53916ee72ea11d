"""What one iteration takes in which nodes die: a simulation of the nodes themselves, step by step in time.

Until the death is known the others follow the order that they had, as far as they get without the dead; from then on
they follow the plan of the living, but for what they have done already.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from skippipe.schedule import Costs, Plan
from skippipe.schedule.arrays import Floats
from skippipe.schedule.simulate import split_task, step_arrivals, step_nodes, step_seconds

Step = tuple[int, int]
"""Microbatch and step, numbered as in simulate.py."""


@dataclass(frozen=True)
class Death:
    """Nodes that die together in an iteration."""

    nodes: frozenset[int]
    at_s: float
    """After the first forward began."""
    unnoticed_s: float
    """Until everyone knows, and what was sent to the dead is sent to their heirs."""


@dataclass(frozen=True)
class State:
    """What there is when the death is known."""

    done: dict[Step, float]
    """End of each step that a living node has begun."""
    arrived: dict[Step, float]
    """When the message of each step that has left, and is not lost, is at the node that needs it in the old plan."""


def state_at(plan: Plan, costs: Costs, death: Death) -> State:
    """What the living have done, and what is at them or on its way, when they learn of the death."""
    nodes, starts = step_nodes(plan.paths_array), plan.starts(costs)
    ends, arrivals = starts + step_seconds(plan.paths_array, costs), step_arrivals(plan.paths_array, costs, starts)
    known_s = death.at_s + death.unnoticed_s
    never = steps_without(plan, costs, death, ends, arrivals)
    done, arrived = {}, {}
    for (microbatch, step), node in np.ndenumerate(nodes):
        this = (microbatch, step)
        if node in death.nodes:
            sent = step + 1 < nodes.shape[1] and arrivals[this] <= death.at_s
        else:
            sent = this not in never and starts[this] <= known_s
            if sent:
                done[this] = float(ends[this])
        if sent and step + 1 < nodes.shape[1]:
            arrived[this] = float(arrivals[this])
    return State(done, arrived)


def steps_without(plan: Plan, costs: Costs, death: Death, ends: Floats, arrivals: Floats) -> set[Step]:
    """Steps that never begin in the old order: the dead's, and those that wait for them, directly or not."""
    nodes = step_nodes(plan.paths_array)
    tasks, offsets = plan.order_arrays(len(costs.forward_s))
    never: set[Step] = set()
    size = -1
    while size != len(never):
        size = len(never)
        for node in range(len(offsets) - 1):
            blocked = False
            for task in tasks[offsets[node] : offsets[node + 1]]:
                this = tuple(map(int, split_task(task, plan.path_length)))
                before = (this[0], this[1] - 1)
                if node in death.nodes:
                    blocked |= bool(ends[this] > death.at_s)
                elif this[1] and (before in never or late(before, nodes, arrivals, death)):
                    blocked = True
                if blocked:
                    never.add((this[0], this[1]))
    return never


def late(step: Step, nodes: np.ndarray, arrivals: Floats, death: Death) -> bool:
    """Whether a step's message was still on its way when its sender died."""
    return nodes[step] in death.nodes and bool(arrivals[step] > death.at_s)


def takeover_step_seconds(plan: Plan, living: Plan, costs: Costs, death: Death) -> float:
    """From the first forward to the end of the last sync, if the living go on with their plan; inf if they never end.

    What is redone is sent only to whom it has not reached. Messages that wait for others are not simulated.
    """
    state = state_at(plan, costs, death)
    ends = run_to_end(plan, living, costs, state, death.at_s + death.unnoticed_s)
    last = {node: 0.0 for stage in living.stages for node in stage}
    nodes = step_nodes(living.paths_array)
    for this, node in np.ndenumerate(nodes):
        last[int(node)] = max(last[int(node)], ends.get(this, math.inf))
    shrunk = [len(now) < len(then) for now, then in zip(living.stages, plan.stages, strict=True)]
    known_s = death.at_s + death.unnoticed_s
    return max(
        max([known_s if lost else 0.0, *(last[node] for node in stage)]) + sync_s
        for stage, sync_s, lost in zip(living.stages, living.sync_s, shrunk, strict=True)
    )


def run_to_end(plan: Plan, living: Plan, costs: Costs, state: State, known_s: float) -> dict[Step, float]:
    """End of each step of the living plan, as far as they end; what was done before keeps its time."""
    old, new = step_nodes(plan.paths_array), step_nodes(living.paths_array)
    seconds = step_seconds(living.paths_array, costs)
    steps = new.shape[1]
    hop_s = costs.hop_s
    here: dict[Step, float] = {}
    for this, at_s in state.arrived.items():
        after = (this[0], this[1] + 1)
        if old[after] == new[after]:
            here[this] = at_s
        elif this in state.done:
            here[this] = max(known_s, state.done[this]) + float(hop_s[new[this], new[after]])
    ends = dict(state.done)
    tasks, offsets = living.order_arrays(len(hop_s))
    left = {}
    for node in living.stage_of():
        row = [split_task(int(task), living.path_length) for task in tasks[offsets[node] : offsets[node + 1]]]
        busy_s = max([known_s, *(ends[step] + costs.task_gap_s for step in row if step in ends)])
        left[node] = (busy_s, [step for step in row if step not in ends])
    moved = True
    while moved:
        moved = False
        for node, (free_s, row) in left.items():
            while row and (not row[0][1] or (row[0][0], row[0][1] - 1) in here):
                microbatch, step = row.pop(0)
                begin_s = max(free_s, here.get((microbatch, step - 1), 0.0))
                end_s = begin_s + float(seconds[microbatch, step])
                ends[microbatch, step] = end_s
                free_s = end_s + costs.task_gap_s
                if step + 1 < steps and (microbatch, step) not in here:
                    here[microbatch, step] = end_s + float(hop_s[node, new[microbatch, step + 1]])
                moved = True
            left[node] = (free_s, row)
    return ends
