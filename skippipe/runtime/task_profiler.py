"""Measures what tasks take on a node: forward, backward, loss, and the executor's idle time between two tasks.

A node of a pipeline waits before most of its tasks, and a processor that has rested is slower at first: short tasks
took half as long again (benchmarks/results/real_links.md). So each task is timed after a rest.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from skippipe.config import EmulationConfig
from skippipe.model.stage import Stage
from skippipe.runtime.emulation import Emulation
from skippipe.runtime.executor import Computed, Executor, expected_senders
from skippipe.schedule import Costs, Plan
from skippipe.schedule.plan import Kind, Task
from skippipe.transport.clocks import Clock
from skippipe.transport.inbox import Inbox
from skippipe.transport.message import Header, MessageKind, pack
from skippipe.transport.work import Work

REST_SECONDS = 0.05
"""Before each task and each hop that is timed."""
MICROBATCHES = 3
ITERATIONS = 5
"""The first of them warms up; the medians of the others count."""


class TaskSeconds(NamedTuple):
    """What the tasks of a microbatch take on a node, in seconds."""

    forward_s: float
    backward_s: float
    loss_s: float
    gap_s: float
    """Idle time between two tasks whose inputs are there."""


class Stopwatch(Executor):
    """An executor whose inputs are all there, and that times its compute apart from all else."""

    def __init__(self, node: int, plan: Plan, stage: Stage, samples: int) -> None:
        costs = Costs(np.zeros(2), 1.0, 1.0, 0.0, np.zeros((2, 2)))
        emulation = Emulation.of(EmulationConfig(enabled=False), costs, node, 0.0, 0)
        self.senders = expected_senders(plan, node)
        inbox = Inbox(self.senders, lambda sender: 0.0)
        super().__init__(node, plan, stage, no_batch, inbox, self.packed, emulation, Clock(), Work())
        self.samples = samples
        self.compute_s: dict[Kind, list[float]] = {kind: [] for kind in Kind}
        self.elsewhere_s = 0.0
        """Spent in compute and resting before it."""

    def packed(self, receiver: int, header: Header, tensor: Tensor) -> None:
        """What sending takes of the executor's thread."""
        pack(header, tensor)

    def now(self) -> float:
        """Time when everything that the device was asked for is done."""
        return self.device.mark()()

    def compute(self, task: Task, tensor: Tensor | None) -> Computed:
        """The task's work, timed to the end of what it asked of the device."""
        rested = self.now()
        time.sleep(REST_SECONDS)
        began = self.now()
        computed = super().compute(task, tensor)
        ended = self.now()
        self.compute_s[task.kind].append(ended - began)
        self.elsewhere_s += ended - rested
        return computed

    def gap_s(self) -> float:
        """Run ITERATIONS of this node's order with all inputs there; median idle seconds a task, after the first."""
        gaps = []
        model = self.stage.config
        for iteration in range(ITERATIONS):
            self.begin(iteration, self.plan)
            for (kind, microbatch), sender in self.senders.items():
                message = torch.randn(self.samples, model.context, model.d_model)
                self.inbox.put(Header(kind, iteration, microbatch, sender, 0.0), message)
            for task in self.order:
                if task.kind is Kind.LOSS:
                    shape = (self.samples, model.context)
                    targets_BT = torch.randint(self.stage.vocabulary, shape)
                    self.targets[task.microbatch] = self.device.upload(targets_BT)
            self.elsewhere_s = 0.0
            began = self.now()
            self.run()
            self.finish()
            gaps.append((self.now() - began - self.elsewhere_s) / len(self.order))
        return statistics.median(gaps[1:])

    def median_s(self, kind: Kind) -> float:
        """Median seconds of a task's work, after the first iteration."""
        times = self.compute_s[kind]
        return statistics.median(times[len(times) // ITERATIONS :])


def measure_tasks(build: Callable[[int], Stage], samples: int) -> TaskSeconds:
    """Run a plan of two stages on this node: forward and backward on layers alone, then the loss at the origin.

    `build` makes the stage of a number, on its device.
    """
    orders = {
        0: [Task(Kind.LOSS, number) for number in range(MICROBATCHES)],
        1: [Task(kind, number) for number in range(MICROBATCHES) for kind in (Kind.FORWARD, Kind.BACKWARD)],
    }
    order = {node: tuple(tasks) for node, tasks in orders.items()}
    plan = Plan(((0,), (1,)), ((0, 1),) * MICROBATCHES, order, (0.0, 0.0), 0.0, 0.0)
    origin, relay = (Stopwatch(node, plan, build(node), samples) for node in (0, 1))
    # The origin's own forwards and backwards are left out, so that no gradient comes for it either.
    origin.senders = {key: sender for key, sender in origin.senders.items() if key[0] is MessageKind.ACTIVATION}
    gap_s = relay.gap_s()
    origin.gap_s()
    return TaskSeconds(relay.median_s(Kind.FORWARD), relay.median_s(Kind.BACKWARD), origin.median_s(Kind.LOSS), gap_s)


def no_batch(iteration: int, microbatch: int) -> tuple[Tensor, Tensor]:
    """No forward is measured at an origin."""
    raise AssertionError(f"microbatch {microbatch} has no batch")
