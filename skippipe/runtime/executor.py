"""One node's iteration: its tasks strictly in the schedule's order, each as soon as its input is there."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from skippipe.data.batches import Batches
from skippipe.model.stage import Stage
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


@dataclass
class IterationRecord:
    """What a node did in one iteration."""

    spans: list[Span] = field(default_factory=list)
    """Its tasks, in monotonic seconds."""
    losses: list[float] = field(default_factory=list)
    """Loss of each microbatch that began here, in nats a token."""
    poison: Poison | None = None
    """What was not finite; of several, the one that is named first."""


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


class Executor:
    """Runs a node's order list on its stage."""

    def __init__(
        self,
        node: int,
        plan: Plan,
        stage: Stage,
        batches: Batches | None,
        inbox: Inbox,
        send: Send,
        emulation: Emulation,
        clock: Clock,
        work: Work,
    ) -> None:
        """`batches` is given on stage-0 nodes; `send` takes receiver, header and tensor and returns at once.

        `work` is told what the executor does, for its peers to know.
        """
        self.node = node
        self.plan = plan
        self.stage = stage
        self.batches = batches
        self.inbox = inbox
        self.send = send
        self.emulation = emulation
        self.outgoing = Outgoing(emulation)
        self.clock = clock
        self.work = work
        self.device = next(stage.parameters()).device
        self.order = plan.order.get(node, ())
        self.senders = expected_senders(plan, node)
        # What is held between forward and backward: the stage's input and output, and at the origin the loss's input.
        self.held: dict[int, tuple[Tensor, Tensor]] = {}
        self.targets: dict[int, Tensor] = {}

    def run_iteration(self, iteration: int) -> IterationRecord:
        """Run every task of this node's order; PeerLostError if an input can't come any more."""
        self.inbox.next_iteration(iteration)
        record = IterationRecord()
        free = self.clock.now()
        for task in self.order:
            free = self.run_task(task, iteration, free, record)
        assert not self.held
        return record

    def run_task(self, task: Task, iteration: int, free: float, record: IterationRecord) -> float:
        """Wait for the task's input and the node, run it, send its result; returns when the node is free again.

        Start and end are the emulated node's: a late wake-up of this process does not delay it, slow compute does.
        """
        ready, tensor = free, None
        begins_here = self.plan.paths[task.microbatch][0] == self.node
        if not (begins_here and task.kind is Kind.FORWARD):
            kind = MessageKind.GRADIENT if task.kind is Kind.BACKWARD else MessageKind.ACTIVATION
            self.work.wait(f"the input of {task} in iteration {iteration}")
            ready, received = self.inbox.take((kind, iteration, task.microbatch))
            tensor = received.to(self.device)
        self.work.begin(f"{task} of iteration {iteration}")
        start = max(ready, free)
        sleep_until(start)
        result = self.compute(task, iteration, tensor, record)
        self.look_for_poison(task, tensor, result, record)
        computed, end = self.clock.now(), start + self.emulation.task_s[task.kind]
        sleep_until(end)
        end = max(end, computed)
        record.spans.append(Span(self.node, KIND_NAMES[task.kind], task.microbatch, start, end))
        if result is not None:
            self.send_result(task, iteration, result, end)
        return end + self.emulation.gap_s

    def compute(self, task: Task, iteration: int, tensor: Tensor | None, record: IterationRecord) -> Tensor | None:
        """The task's work on its input; what must be sent on, None if the microbatch's way ends here."""
        microbatch = task.microbatch
        if task.kind is Kind.FORWARD:
            return self.forward(microbatch, iteration, tensor)
        assert tensor is not None
        if task.kind is Kind.LOSS:
            hidden_BTD = tensor.requires_grad_()
            loss = self.stage.loss(hidden_BTD, self.targets.pop(microbatch))
            loss.backward()  # type: ignore[no-untyped-call]
            record.losses.append(float(loss.detach()))
            return hidden_BTD.grad
        entered, left = self.held.pop(microbatch)
        left.backward(tensor)  # type: ignore[no-untyped-call]
        return entered.grad

    def look_for_poison(
        self, task: Task, received: Tensor | None, result: Tensor | None, record: IterationRecord
    ) -> None:
        """Note what is not finite, and log the first such task."""
        loss = record.losses[-1] if task.kind is Kind.LOSS else 0.0
        poison = poison_of_task(task.kind, received, result, loss)
        if poison is not None:
            if record.poison is None:
                logger.warning("%s node %d in task %s was not finite", poison.text, self.node, task)
            record.poison = min(poison, record.poison or poison)

    def forward(self, microbatch: int, iteration: int, tensor: Tensor | None) -> Tensor:
        """Run the stage on a microbatch and hold what backward needs."""
        if tensor is None:
            assert self.batches is not None
            tokens_BT, targets_BT = self.batches.batch(iteration, self.plan.own_number(microbatch))
            self.targets[microbatch] = targets_BT.to(self.device)
            entered = tokens_BT.to(self.device)
        else:
            entered = tensor.requires_grad_()
        left: Tensor = self.stage(entered)
        self.held[microbatch] = (entered, left)
        return left

    def send_result(self, task: Task, iteration: int, tensor: Tensor, end: float) -> None:
        """Send an activation onwards or a gradient back along the path."""
        path = self.plan.paths[task.microbatch]
        if task.kind is Kind.FORWARD:
            kind, receiver = MessageKind.ACTIVATION, [*path, path[0]][path.index(self.node) + 1]
        elif task.kind is Kind.LOSS:
            kind, receiver = MessageKind.GRADIENT, path[-1]
        else:
            kind, receiver = MessageKind.GRADIENT, path[path.index(self.node) - 1]
        sent = self.clock.wire(self.outgoing.leave(receiver, end))
        self.send(receiver, Header(kind, iteration, task.microbatch, self.node, sent), tensor)
