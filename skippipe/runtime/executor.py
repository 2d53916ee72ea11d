"""One node's iteration: its tasks strictly in the plan's order, each as soon as its input is there."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from skippipe.model.stage import Stage
from skippipe.runtime.device import Copy, Mark, open_device
from skippipe.runtime.emulation import Emulation, Outgoing, sleep_until
from skippipe.runtime.soundness import Poison, poison_of_task
from skippipe.schedule import Plan
from skippipe.schedule.plan import Kind, Task
from skippipe.schedule.timeline import KIND_NAMES, Span
from skippipe.transport.clocks import Clock
from skippipe.transport.inbox import Inbox
from skippipe.transport.message import Header, MessageKind
from skippipe.transport.work import Work

logger = logging.getLogger(__name__)

Send = Callable[[int, Header, Tensor], None]
ReadBatch = Callable[[int, int], tuple[Tensor, Tensor]]
"""Tokens and targets, (B, T) each, of an iteration and a microbatch."""


@dataclass
class IterationRecord:
    """What a node did in one iteration."""

    spans: list[Span] = field(default_factory=list)
    """Its tasks, in monotonic seconds."""
    losses: list[float] = field(default_factory=list)
    """Loss of each microbatch that ended here, in nats a token."""
    poison: Poison | None = None
    """What was not finite; of several, the one that is named first."""


class Computed(NamedTuple):
    """What a task has computed, on its device."""

    result: Tensor | None
    """What must be sent on; None if the microbatch's way ends here."""
    loss: Tensor | None = None
    """In nats a token, if the task is one."""


@dataclass(frozen=True)
class Asked:
    """A task that the device was asked for."""

    task: Task
    start: float
    """When its input was there, in monotonic seconds; emulated, when it began."""
    received: Tensor | None
    result: Tensor | None
    sums: Copy
    """(2,) fp32: the sum of what leaves the task, or else of what it received, and its loss or 0."""
    ended: Mark
    sent_on: Copy | None


def expected_senders(plan: Plan, node: int) -> dict[tuple[MessageKind, int], int]:
    """Who sends this node each activation and gradient of an iteration, by kind and microbatch."""
    senders: dict[tuple[MessageKind, int], int] = {}
    for microbatch, path in enumerate(plan.paths):
        around = [*path, path[0]]
        for sender, receiver in itertools.pairwise(around):
            if receiver == node:
                senders[MessageKind.ACTIVATION, microbatch] = sender
            if sender == node:
                senders[MessageKind.GRADIENT, microbatch] = receiver
    return senders


def receiver_of(plan: Plan, node: int, task: Task) -> tuple[MessageKind, int] | None:
    """What a task's result is, and the node that it goes to; None if the microbatch's way ends with the task."""
    receiver = plan.receiver_of(node, task)
    if receiver is None:
        return None
    return (MessageKind.ACTIVATION if task.kind is Kind.FORWARD else MessageKind.GRADIENT), receiver


class Executor:
    """Runs a node's order list on its stage."""

    def __init__(
        self,
        node: int,
        plan: Plan,
        stage: Stage,
        read_batch: ReadBatch,
        inbox: Inbox,
        send: Send,
        emulation: Emulation,
        clock: Clock,
        work: Work,
    ) -> None:
        """`read_batch` is asked on stage-0 nodes; `send` takes receiver, header and tensor and returns at once.

        `work` is told what the executor does, for its peers to know.
        """
        self.node = node
        self.plan = plan
        self.stage = stage
        self.read_batch = read_batch
        self.inbox = inbox
        self.send = send
        self.emulation = emulation
        self.outgoing = Outgoing(emulation)
        self.clock = clock
        self.work = work
        self.device = open_device(next(stage.parameters()).device)
        self.asked: Asked | None = None
        """The task that the device has not been waited for yet."""
        self.order = plan.order.get(node, ())
        # What is held between forward and backward: the stage's input and output, and at the origin the loss's input.
        self.held: dict[int, tuple[Tensor, Tensor]] = {}
        self.targets: dict[int, Tensor] = {}
        self.iteration = -1
        self.record = IterationRecord()
        self.free = 0.0
        """When the node is free again, in monotonic seconds."""
        self.done: dict[Task, Tensor | None] = {}
        """Tasks of this iteration that are done, with what was sent on: heirs of lost nodes may need it again."""

    def begin(self, iteration: int, plan: Plan) -> None:
        """Begin an iteration; all nodes are done with the one before."""
        assert not self.held
        self.plan, self.order = plan, plan.order.get(self.node, ())
        self.inbox.next_iteration(iteration)
        self.iteration, self.record = iteration, IterationRecord()
        self.free = self.clock.now()

    def begin_again(self, plan: Plan) -> None:
        """Drop what was done of the iteration, and begin it with another plan."""
        self.held.clear()
        self.targets.clear()
        self.done.clear()
        self.plan, self.order = plan, plan.order.get(self.node, ())
        self.record = IterationRecord()
        self.free = max(self.free, self.clock.now())

    def hold(self, stage: Stage) -> None:
        """Work on another stage from the next iteration on."""
        self.stage = stage

    def finish(self) -> None:
        """The iteration is committed: nobody needs again what was sent."""
        self.done.clear()

    def run(self) -> IterationRecord:
        """Run every task of this node's order that is not done yet.

        PeerLostError if an input can't come any more, ViewChangedError if another plan must be taken up first.
        """
        try:
            for task in self.order:
                if task not in self.done:
                    self.inbox.check()
                    self.run_task(task)
        finally:
            self.settle()
        return self.record

    def take_up(self, plan: Plan, view: int) -> None:
        """Go on with another plan, in which lost nodes have heirs; send again what these need."""
        before, self.plan = self.plan, plan
        self.order = plan.order.get(self.node, ())
        # What is inherited can't have begun before it was.
        self.free = max(self.free, self.clock.now())
        for task, result in self.done.items():
            goes_to = receiver_of(plan, self.node, task)
            if result is not None and goes_to is not None and goes_to != receiver_of(before, self.node, task):
                self.send_result(task, result, self.clock.now(), view)

    @property
    def runs_ahead(self) -> bool:
        """Whether the device gets a task before it is done with the one before; emulated ones end by the clock."""
        return self.device.runs_ahead and not self.emulation.enabled

    def run_task(self, task: Task) -> None:
        """Wait for the task's input and the node, ask the device for it, and send the result of what is done."""
        ready, tensor = self.receive(task)
        self.work.begin(f"{task} of iteration {self.iteration}")
        start = max(ready, self.free)
        sleep_until(start)
        before, self.asked = self.asked, self.ask(task, start, tensor)
        if before is not None:
            self.complete(before)
        if not self.runs_ahead:
            self.settle()

    def receive(self, task: Task) -> tuple[float, Tensor | None]:
        """Wait for the task's input: when it was there, and the input on the device unless it is a batch."""
        if task.kind is Kind.FORWARD and self.plan.paths[task.microbatch][0] == self.node:
            return self.free, None
        kind = MessageKind.GRADIENT if task.kind is Kind.BACKWARD else MessageKind.ACTIVATION
        key = kind, self.iteration, task.microbatch
        if not self.inbox.has(key):
            # Whoever waits for the last result must not wait for this input.
            self.settle()
        self.work.wait(f"the input of {task} in iteration {self.iteration}")
        ready, received = self.inbox.take(key)
        return ready, self.device.upload(received)

    def ask(self, task: Task, start: float, tensor: Tensor | None) -> Asked:
        """Ask the device for the task, and for copies of what it leaves."""
        result, loss = self.compute(task, tensor)
        leaves = tensor if result is None else result
        assert leaves is not None
        total = leaves.detach().sum()
        sums = torch.stack([total, torch.zeros_like(total) if loss is None else loss.detach()])
        ended = self.device.mark()
        sent_on = None if result is None else self.device.download(result.detach())
        return Asked(task, start, tensor, result, self.device.download(sums), ended, sent_on)

    def settle(self) -> None:
        """Complete the task that the device was asked for last."""
        if self.asked is not None:
            asked, self.asked = self.asked, None
            self.complete(asked)

    def complete(self, asked: Asked) -> None:
        """Wait until the device is done with a task, and send its result.

        Start and end are the emulated node's: a late wake-up of this process does not delay it, slow compute does.
        """
        task, computed = asked.task, asked.ended()
        start = max(asked.start, self.free)
        end = start + self.emulation.task_s[task.kind]
        sleep_until(end)
        end = max(end, computed)
        self.record.spans.append(Span(self.node, KIND_NAMES[task.kind], task.microbatch, start, end))
        self.look_at(asked)
        kept = self.done[task] = None if asked.sent_on is None else asked.sent_on()
        if kept is not None:
            self.send_result(task, kept, end, self.inbox.view)
        self.free = end + self.emulation.gap_s

    def compute(self, task: Task, tensor: Tensor | None) -> Computed:
        """The task's work on its input."""
        microbatch = task.microbatch
        if task.kind is Kind.FORWARD:
            return Computed(self.forward(microbatch, tensor))
        assert tensor is not None
        if task.kind is Kind.LOSS:
            hidden_BTD = tensor.requires_grad_()
            loss = self.stage.loss(hidden_BTD, self.targets.pop(microbatch))
            loss.backward()  # type: ignore[no-untyped-call]
            return Computed(hidden_BTD.grad, loss)
        entered, left = self.held.pop(microbatch)
        left.backward(tensor)  # type: ignore[no-untyped-call]
        return Computed(entered.grad)

    def look_at(self, asked: Asked) -> None:
        """Keep the loss of a task that is done; note what is not finite, and log the first such task."""
        record, task = self.record, asked.task
        total, loss = asked.sums().tolist()
        if task.kind is Kind.LOSS:
            record.losses.append(loss)
        poison = poison_of_task(task.kind, asked.received, asked.result, loss, total)
        if poison is not None:
            if record.poison is None:
                logger.warning("%s node %d in task %s was not finite", poison.text, self.node, task)
            record.poison = min(poison, record.poison or poison)

    def forward(self, microbatch: int, tensor: Tensor | None) -> Tensor:
        """Run the stage on a microbatch and hold what backward needs."""
        if tensor is None:
            tokens_BT, targets_BT = self.read_batch(self.iteration, microbatch)
            self.targets[microbatch] = self.device.upload(targets_BT)
            entered = self.device.upload(tokens_BT)
        else:
            entered = tensor.requires_grad_()
        left: Tensor = self.stage(entered)
        self.held[microbatch] = (entered, left)
        return left

    def send_result(self, task: Task, tensor: Tensor, end: float, view: int) -> None:
        """Send an activation onwards or a gradient back along the path; it is ready at a monotonic time."""
        goes_to = receiver_of(self.plan, self.node, task)
        assert goes_to is not None
        kind, receiver = goes_to
        sent = self.clock.wire(self.outgoing.leave(receiver, end))
        self.send(receiver, Header(kind, self.iteration, task.microbatch, self.node, sent, view=view), tensor)
