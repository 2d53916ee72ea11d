"""`python -m tests.end_to_end.hanging PLACE NODE run ...`: skippipe, with a node that hangs from iteration 1 on.

PLACE may also be SLOW: from iteration 4 on the node's tasks take much longer. Or JOINING: the node's process is killed
in iteration 1, and the next one stands still while it joins.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from enum import Enum
from typing import Any

from skippipe.__main__ import main
from skippipe.model.optimizer import StageOptimizer
from skippipe.runtime import joining, worker
from skippipe.runtime.executor import Executor
from skippipe.runtime.full_model import FullModel
from skippipe.runtime.member import Member
from skippipe.schedule.plan import Task
from skippipe.survival.view import View

FIRST, FIRST_SLOW = 1, 4
SLOW, SLOW_SECONDS = "SLOW", 0.3
JOINING = "JOINING"


class Place(Enum):
    """Where a node hangs, as a device or a disk makes it."""

    TASK = "a task"
    SYNC = "its part of the sync, after the messages"
    VALIDATION = "the validation of its stage"
    SAVING = "saving its stage"


def hang(place: Place, node: int) -> None:
    """Let a node hang at a place: patched before the launcher forks."""
    iteration = here = -1
    begin, compute, norm = Executor.begin, Executor.compute, StageOptimizer.squared_norm
    walk, save = FullModel.walk, worker.save_stage

    def sleep_at(reached: Place) -> None:
        while reached is place and here == node and iteration >= FIRST:
            time.sleep(3600)

    def beginning(executor: Executor, number: int, plan: Any) -> None:
        nonlocal iteration, here
        iteration, here = number, executor.node
        begin(executor, number, plan)

    def computing(executor: Executor, task: Task, tensor: Any) -> Any:
        sleep_at(Place.TASK)
        return compute(executor, task, tensor)

    def summing(optimizer: StageOptimizer) -> float:
        sleep_at(Place.SYNC)
        return norm(optimizer)

    def walking(model: FullModel, *arguments: Any) -> float | None:
        sleep_at(Place.VALIDATION)
        return walk(model, *arguments)

    def saving(*arguments: Any, **named: Any) -> None:
        sleep_at(Place.SAVING)
        save(*arguments, **named)

    worker.save_stage = saving
    Executor.begin, Executor.compute, StageOptimizer.squared_norm = beginning, computing, summing  # type: ignore[method-assign]
    FullModel.walk = walking  # type: ignore[method-assign]


def slow_down(node: int) -> None:
    """Let a node become slow: patched before the launcher forks."""
    compute = Executor.compute

    def computing(executor: Executor, task: Task, tensor: Any) -> Any:
        if executor.node == node and executor.iteration >= FIRST_SLOW:
            time.sleep(SLOW_SECONDS)
        return compute(executor, task, tensor)

    Executor.compute = computing  # type: ignore[method-assign]


def stop_while_joining(node: int) -> None:
    """Let a node die, and its next process stand still: patched before the launcher forks."""
    has_joined = False
    begin, wait = Executor.begin, joining.wait_for_view

    def beginning(executor: Executor, number: int, plan: Any) -> None:
        if executor.node == node and number == FIRST and not has_joined:
            os.kill(os.getpid(), signal.SIGKILL)
        begin(executor, number, plan)

    def waiting(member: Member) -> View:
        nonlocal has_joined
        has_joined = True
        if member.job.node == node and member.job.endpoint.birth == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        return wait(member)

    Executor.begin = beginning  # type: ignore[method-assign]
    joining.wait_for_view = waiting


if __name__ == "__main__":
    if sys.argv[1] == SLOW:
        slow_down(int(sys.argv[2]))
    elif sys.argv[1] == JOINING:
        stop_while_joining(int(sys.argv[2]))
    else:
        hang(Place[sys.argv[1]], int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
