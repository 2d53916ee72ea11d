"""An executor whose device works behind it: what it asks for when, what it sends when, and how long its tasks took."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
import torch
from torch import Tensor

from skippipe.config import EmulationConfig, ModelConfig
from skippipe.model.stage import Stage
from skippipe.runtime.device import Copy, CpuDevice, Mark
from skippipe.runtime.emulation import Emulation
from skippipe.runtime.executor import Computed, Executor, IterationRecord, expected_senders
from skippipe.schedule.plan import Kind, Task
from skippipe.transport.inbox import Inbox, PeerLostError, ViewChangedError
from skippipe.transport.message import Header, MessageKind
from skippipe.transport.work import Work
from tests.small_schedule import small_schedule

MODEL = ModelConfig(context=32)
NODE = 0
"""An origin, which has tasks of all kinds."""


class Behind(CpuDevice):
    """A device whose results are there when they are waited for, a hundredth of a second after the one before."""

    runs_ahead = True

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.ended: list[float] = []

    def download(self, tensor: Tensor) -> Copy:
        return lambda: tensor.clone()

    def mark(self) -> Mark:
        return self.end

    def end(self) -> float:
        self.ended.append(self.ended[-1] + 0.01 if self.ended else time.monotonic())
        return self.ended[-1]


class Impatient(Inbox):
    """An inbox that waits for nothing."""

    def take(self, key: Any) -> tuple[float, Tensor]:
        if not self.has(key):
            raise PeerLostError(f"{key} is not there")
        return super().take(key)


class Told(Executor):
    """An executor that keeps what it did, in order, and is given what the others would send."""

    def __init__(self, device: CpuDevice, emulated: bool = False) -> None:
        schedule = small_schedule(hop_s=0.0, forward_s=0.001)
        plan = schedule.plan("ca-partial")
        senders = expected_senders(plan, NODE)
        emulation = Emulation.of(EmulationConfig(emulated), schedule.costs, NODE, 0.0, 0)
        inbox, stage = Impatient(senders, lambda sender: 0.0), Stage(MODEL, 0, 300, 0)
        super().__init__(NODE, plan, stage, batch, inbox, self.keep, emulation, inbox.clock, Work())
        self.device = device
        self.senders = senders
        self.happened: list[str] = []
        self.sent: dict[str, Tensor] = {}
        self.arriving: dict[str, list[tuple[MessageKind, int]]] = {}
        """By what happens: what comes then."""

    def compute(self, task: Task, tensor: Tensor | None) -> Computed:
        self.happened.append(str(task))
        return super().compute(task, tensor)

    def keep(self, receiver: int, header: Header, tensor: Tensor) -> None:
        name = f"{header.kind.name} {header.microbatch}"
        self.happened.append(name)
        self.sent[name] = tensor.clone()
        for kind, microbatch in self.arriving.pop(name, []):
            self.arrive(kind, microbatch)

    def arrive(self, kind: MessageKind, microbatch: int) -> None:
        """Let an input come: the same numbers for the same one."""
        generator = torch.Generator().manual_seed(10 * microbatch + kind)
        hidden_BTD = torch.randn(2, MODEL.context, MODEL.d_model, generator=generator)
        header = Header(kind, 0, microbatch, self.senders[kind, microbatch], 0.0)
        self.inbox.put(header, hidden_BTD)

    def run_all(self) -> IterationRecord:
        """Run the order with all inputs there."""
        for kind, microbatch in self.senders:
            self.arrive(kind, microbatch)
        self.begin(0, self.plan)
        return self.run()

    def gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.stage.parameters() if parameter.grad is not None]


def batch(iteration: int, microbatch: int) -> tuple[Tensor, Tensor]:
    tokens_BT = torch.arange(2 * MODEL.context).view(2, -1) + microbatch
    return tokens_BT, tokens_BT + 1


def result_of(task: Task) -> str | None:
    """What an origin sends when a task is done."""
    kind = {Kind.FORWARD: MessageKind.ACTIVATION, Kind.LOSS: MessageKind.GRADIENT}.get(task.kind)
    return f"{kind.name} {task.microbatch}" if kind is not None else None


def test_running_ahead_changes_no_number() -> None:
    behind, plain = Told(Behind()), Told(CpuDevice(torch.device("cpu")))
    record, expected = behind.run_all(), plain.run_all()
    assert {task.kind for task in plain.order} == set(Kind)
    assert record.losses == expected.losses
    assert len(record.losses) == 3
    assert list(behind.sent) == list(plain.sent) == [name for task in plain.order if (name := result_of(task))]
    assert all(torch.equal(behind.sent[name], plain.sent[name]) for name in plain.sent)
    assert behind.done.keys() == set(behind.order)
    pairs = list(zip(behind.gradients(), plain.gradients(), strict=True))
    assert pairs
    assert all(torch.equal(own, other) for own, other in pairs)


def test_the_next_task_is_asked_for_before_the_one_before_is_waited_for() -> None:
    told = Told(Behind())
    told.run_all()
    expected = [str(told.order[0])]
    for before, task in itertools.pairwise(told.order):
        expected += [str(task), *([name] if (name := result_of(before)) else [])]
    assert told.happened == expected


@pytest.mark.parametrize(("device", "emulated"), [(Behind(), True), (CpuDevice(torch.device("cpu")), False)])
def test_emulated_tasks_and_those_of_a_cpu_end_before_the_next_one_begins(device: CpuDevice, emulated: bool) -> None:
    told = Told(device, emulated)
    told.run_all()
    assert told.happened == [name for task in told.order for name in (str(task), result_of(task)) if name is not None]


def test_a_result_is_sent_before_an_input_is_waited_for_that_may_hang_on_it() -> None:
    told = Told(Behind())
    first = next(task for task in told.order if task.kind is Kind.LOSS)
    # The loss's input comes when the last forward before it has been sent, everything else at once.
    before = told.order[told.order.index(first) - 1]
    awaited = (MessageKind.ACTIVATION, first.microbatch)
    told.arriving[str(result_of(before))] = [awaited]
    for key in told.senders.keys() - {awaited}:
        told.arrive(*key)
    told.begin(0, told.plan)
    assert len(told.run().losses) == 3


def test_a_change_of_view_finds_nothing_asked_for() -> None:
    told = Told(Behind())
    first, second = told.order[:2]
    (name,) = [result_of(first)]
    compute = told.compute

    def changing(task: Task, tensor: Tensor | None) -> Computed:
        told.inbox.change()
        return compute(task, tensor)

    told.compute = changing  # type: ignore[method-assign]
    with pytest.raises(ViewChangedError):
        told.run_all()
    assert told.happened == [str(first), name]
    assert list(told.done) == [first]
    assert told.asked is None
    assert second not in told.done


def test_a_task_lasts_from_its_input_or_the_end_of_the_one_before_to_the_end_of_its_own_work() -> None:
    device = Behind()
    spans = Told(device).run_all().spans
    assert [span.end_s for span in spans] == device.ended
    # All inputs were there before the first task ended.
    assert [span.start_s for span in spans[1:]] == [span.end_s for span in spans[:-1]]
