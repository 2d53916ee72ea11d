"""The plan of one setting: who holds which stage, which path each microbatch takes, the order of each node's tasks."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import numpy as np

from skippipe.config import Encoding
from skippipe.errors import UserError
from skippipe.schedule.arrays import Floats, Integers
from skippipe.schedule.costs import Costs, hop_ratio, sync_ratio
from skippipe.schedule.simulate import (
    iteration_seconds,
    order_from_starts,
    simulate_first_come_first_served,
    simulate_order,
    split_task,
    step_with_sync_seconds,
    task_number,
)


class Kind(Enum):
    """What a task does to its microbatch."""

    FORWARD = "F"
    LOSS = "L"
    BACKWARD = "B"


def kind_of_step(step: int, path_length: int) -> Kind:
    """What a step of a microbatch is (numbered as in simulate.py), if its path visits `path_length` nodes."""
    return Kind.FORWARD if step < path_length else Kind.LOSS if step == path_length else Kind.BACKWARD


@dataclass(frozen=True)
class Task:
    """One entry of a node's order list, written F3, L3 or B3 for microbatch 3."""

    kind: Kind
    microbatch: int

    def __str__(self) -> str:
        return f"{self.kind.value}{self.microbatch}"

    @classmethod
    def parse(cls, text: Any, where: str) -> Task:
        """Read a task's text; UserError says where it stands."""
        if not isinstance(text, str) or not (match := re.fullmatch(r"([FLB])(0|[1-9][0-9]{0,8})", text, re.ASCII)):
            raise UserError(
                f"{where}: {str(text)[:40]!r} is no task; write F, L or B and the microbatch's id, such as F3"
            )
        return cls(Kind(match[1]), int(match[2]))


@dataclass(frozen=True)
class Pipeline:
    """The model and batch that the times of a schedule are for."""

    stages: int
    path_length: int
    """Stages that a partial path visits, stage 0 counted in."""
    memory: int
    """Most microbatches that a node holds between forward and backward."""
    layers_per_stage: int
    d_model: int
    heads: int
    context: int
    samples_per_microbatch: int
    microbatches_per_node: int
    """Microbatches that each stage-0 node sends in an iteration."""
    activation_bytes: int
    """Bytes of one microbatch's activation in fp32."""
    stage_bytes: int
    """Bytes that the data-parallel sync of one stage's layers moves in fp32."""
    feed_forward: int | None = None
    """Hidden width of the feed-forward part, if it is not 4 x d_model."""
    head_bytes: int | None = None
    """Bytes that the sync of stage 0 moves for embedding, norm and head in fp32, if they are counted."""
    hop_encoding: Encoding = "fp32"
    """How activations and gradients are written in the hops that the costs are for."""
    sync_encoding: Encoding = "fp32"
    """How gradients are written in the syncs that the plans are for."""

    @property
    def hidden_width(self) -> int:
        """Feed-forward width in use."""
        return self.feed_forward or 4 * self.d_model

    @property
    def hop_bytes(self) -> float:
        """Bytes of one microbatch's activation as it is written."""
        return self.activation_bytes * hop_ratio(self.hop_encoding, self.d_model)

    @property
    def sync_bytes(self) -> tuple[float, ...]:
        """Bytes that the data-parallel sync of each stage moves, as they are written."""
        exact = (self.stage_bytes + (self.head_bytes or 0), *(self.stage_bytes,) * (self.stages - 1))
        return tuple(moved * sync_ratio(self.sync_encoding) for moved in exact)


@dataclass(frozen=True)
class Plan:
    """One setting of a schedule: stages, the path of every microbatch, the order on every node."""

    stages: tuple[tuple[int, ...], ...]
    """Nodes of each stage."""
    paths: tuple[tuple[int, ...], ...]
    """Nodes that each microbatch visits, its origin first; the microbatch's id is its place in the list."""
    order: dict[int, tuple[Task, ...]]
    """Every task of each node, in the order that the node runs them."""
    sync_s: tuple[float, ...]
    """Seconds of each stage's data-parallel sync."""
    expected_iteration_s: float
    expected_step_s: float
    search: dict[str, Any] = field(default_factory=dict)
    """How the plan was found: solver, seed, seconds, and lower bounds on its iteration and its step."""

    @property
    def paths_array(self) -> Integers:
        """Paths as an array, (microbatches, path length)."""
        return np.array(self.paths, dtype=np.int64)

    @property
    def path_length(self) -> int:
        """Stages that every path of this plan visits."""
        return len(self.paths[0])

    @property
    def sends(self) -> Counter[int]:
        """Microbatches that each origin sends."""
        return Counter(path[0] for path in self.paths)

    def stage_of(self) -> dict[int, int]:
        """Stage of each node."""
        return {node: stage for stage, nodes in enumerate(self.stages) for node in nodes}

    def own_number(self, microbatch: int) -> int:
        """Place of a microbatch among those of its origin; batch j of a node is for its microbatch with number j."""
        origin = self.paths[microbatch][0]
        return sum(path[0] == origin for path in self.paths[:microbatch])

    def receiver_of(self, node: int, task: Task) -> int | None:
        """The node that a task's result goes to; None if the microbatch's way ends with the task."""
        path = self.paths[task.microbatch]
        place = path.index(node)
        if task.kind is Kind.FORWARD:
            return [*path, path[0]][place + 1]
        if task.kind is Kind.LOSS:
            return path[-1]
        return path[place - 1] if place else None

    def stage_visits(self) -> list[int]:
        """How many microbatches visit each stage in an iteration."""
        stage_of = self.stage_of()
        visits = [0] * len(self.stages)
        for path in self.paths:
            for node in path:
                visits[stage_of[node]] += 1
        return visits

    def order_arrays(self, nodes: int) -> tuple[Integers, Integers]:
        """The order as (tasks, offsets) for simulate_order."""
        tasks: list[int] = []
        offsets = [0]
        for node in range(nodes):
            for task in self.order.get(node, ()):
                tasks.append(task_number(task.microbatch, self.step_of(task, node), self.path_length))
            offsets.append(len(tasks))
        return np.array(tasks, dtype=np.int64), np.array(offsets, dtype=np.int64)

    def starts(self, costs: Costs) -> Floats:
        """Start of each step in seconds, (microbatches, 2K + 1), with the order followed; NaN if it never runs."""
        return simulate_order(self.paths_array, costs, *self.order_arrays(len(costs.forward_s)))

    def step_of(self, task: Task, node: int) -> int:
        """Step of the microbatch (numbered as in simulate.py) that the task is on this node."""
        length = self.path_length
        if task.kind is Kind.LOSS:
            return length
        place = self.paths[task.microbatch].index(node)
        return place if task.kind is Kind.FORWARD else 2 * length - place


def timed(plan: Plan, costs: Costs, starts: Floats) -> Plan:
    """The plan with the expected times that these starts of its steps give."""
    paths, stages = plan.paths_array, [list(stage) for stage in plan.stages]
    return replace(
        plan,
        expected_iteration_s=iteration_seconds(paths, costs, starts),
        expected_step_s=step_with_sync_seconds(paths, costs, starts, stages, list(plan.sync_s)),
    )


def make_plan(
    stages: list[list[int]],
    paths: Integers,
    costs: Costs,
    memory: int,
    sync_s: list[float],
    search: dict[str, Any],
    starts: Floats | None = None,
) -> Plan:
    """A plan whose order is what the given starts of its steps say, by default those of first-come-first-served.

    Raises UserError if the nodes wait for each other for ever.
    """
    if starts is None:
        starts = simulate_first_come_first_served(paths, costs, memory)
    if np.isnan(starts).any():
        stuck = int(np.argwhere(np.isnan(starts))[0][0])
        raise UserError(
            f"first-come-first-served gets stuck: microbatch {stuck} never ends; choose other paths or memory"
        )
    order = order_of(paths, starts, len(costs.forward_s))
    untimed = Plan(
        stages=tuple(tuple(int(node) for node in stage) for stage in stages),
        paths=tuple(tuple(int(node) for node in path) for path in paths),
        order=order,
        sync_s=tuple(float(value) for value in sync_s),
        expected_iteration_s=0.0,
        expected_step_s=0.0,
        search=search,
    )
    return timed(untimed, costs, untimed.starts(costs))


def order_of(paths: Integers, starts: Floats, nodes: int) -> dict[int, tuple[Task, ...]]:
    """Order lists of all nodes from the start of each step."""
    length = paths.shape[1]
    tasks, offsets = order_from_starts(paths, starts, nodes)
    order: dict[int, tuple[Task, ...]] = {}
    for node in range(nodes):
        entries = []
        for task in tasks[offsets[node] : offsets[node + 1]]:
            microbatch, step = split_task(int(task), length)
            entries.append(Task(kind_of_step(step, length), microbatch))
        order[node] = tuple(entries)
    return order
