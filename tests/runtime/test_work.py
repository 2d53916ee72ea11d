"""What heartbeats say of an executor: the task that it works on, or the input that it waits for."""

from __future__ import annotations

import pytest
import torch

from skippipe.config import EmulationConfig, ModelConfig
from skippipe.model.stage import Stage
from skippipe.runtime.emulation import Emulation
from skippipe.runtime.executor import Executor, expected_senders
from skippipe.runtime.task_profiler import no_batch
from skippipe.schedule.plan import Kind, Task
from skippipe.transport.inbox import Inbox, PeerLostError
from skippipe.transport.message import Header, MessageKind
from skippipe.transport.work import Work, WorkState, unpack_work
from tests.small_schedule import small_schedule


class Asked(Executor):
    """An executor that remembers what its heartbeats would have said during each task."""

    def compute(self, task: Task, *arguments):
        self.said.append(unpack_work(self.work.pack()))
        return super().compute(task, *arguments)


def test_an_executor_says_which_task_it_works_on_and_which_input_it_waits_for() -> None:
    schedule = small_schedule()
    plan = schedule.plan("ca-partial")
    inbox, work = Inbox(expected_senders(plan, 2), lambda sender: 0.0), Work()
    emulation = Emulation.of(EmulationConfig(enabled=False), schedule.costs, 2, 0.0, 0)
    stage = Stage(ModelConfig(context=32), 1, 300, 0)
    executor = Asked(2, plan, stage, no_batch, inbox, lambda *_: None, emulation, inbox.clock, work)
    executor.said = []
    first, second = executor.order[:2]
    assert first.kind is Kind.FORWARD
    batch = torch.zeros(2, 32, 64)
    sender = expected_senders(plan, 2)[MessageKind.ACTIVATION, first.microbatch]
    inbox.put(Header(MessageKind.ACTIVATION, 0, first.microbatch, sender, 0.0), batch)
    inbox.fail("node 0 can't be reached")
    executor.begin(0, plan)
    with pytest.raises(PeerLostError):
        executor.run()
    assert [(state.working, state.what) for state in executor.said] == [(True, f"{first} of iteration 0")]
    state = unpack_work(work.pack())
    assert (state.working, state.what) == (False, f"the input of {second} in iteration 0")
    assert state.changes == 3


def test_only_work_on_one_thing_for_too_long_is_hanging() -> None:
    assert WorkState(11.0, 1, True, "F1").hangs(10.0)
    assert not WorkState(9.0, 1, True, "F1").hangs(10.0)
    assert not WorkState(1000.0, 1, False, "the input of F1").hangs(10.0)
