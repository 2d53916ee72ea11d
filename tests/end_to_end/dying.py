"""`python -m tests.end_to_end.dying MOMENT NODE run ...`: skippipe, with a node that dies at a moment of iteration 1.

NODE may be two, as 3,0: the second one then dies when it goes on without the first. As 3,0@2 it dies when node 2, an
heir of the first, has done a backward more for it. MOMENT may also be CUT=OTHER: the link from the node to another one
is then lost for good.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from enum import Enum
from typing import Any

from skippipe.__main__ import main
from skippipe.runtime.executor import Executor
from skippipe.runtime.pace import Pace
from skippipe.runtime.worker import Worker
from skippipe.schedule.plan import Kind, Task
from skippipe.transport.all_reduce import AllReduce
from skippipe.transport.links import Links
from skippipe.transport.sharing import Sharing
from skippipe.transport.streams import PeerStreams

ITERATION = 1
CUT = "CUT="


class Moment(Enum):
    """When a node dies; its value is the first iteration of the view that follows."""

    FIRST_TASK = "before its first task", ITERATION
    MIDDLE_TASK = "between two tasks", ITERATION
    LAST_TASK = "before its last task", ITERATION
    SYNC = "in the middle of the sync", ITERATION
    FIGURES = "before it shares its figures", ITERATION
    TOLD_ONE = "as the root of the tree, when one other has everyone's figures", ITERATION + 1
    COMMITTED = "when it has everyone's figures", ITERATION + 1
    STEPPED = "after its optimizer step", ITERATION + 1
    SAVING = "when its stage is written, but has no name yet", ITERATION + 1

    @property
    def iteration(self) -> int:
        """The first of the next view."""
        return self.value[1]


def die() -> None:
    """End this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


class Patches:
    """Lets a node die, or lose a link: patched before the launcher forks."""

    def __init__(self, node: int) -> None:
        self.node = node
        self.iteration = self.here = -1
        """That this process is in, and its node."""

    def is_now(self, node: int) -> bool:
        """Whether this process is the node's, in the iteration that it does not survive."""
        return node == self.node and self.iteration == ITERATION

    def follow(self) -> None:
        """Know the iteration."""
        begin = Executor.begin

        def noted(executor: Executor, iteration: int, plan: Any) -> None:
            self.iteration, self.here = iteration, executor.node
            begin(executor, iteration, plan)

        Executor.begin = noted  # type: ignore[method-assign]

    def die_at(self, moment: Moment) -> None:
        """Die at a moment."""
        self.follow()
        run_task, take, begin, spread = Executor.run_task, AllReduce.take, Sharing.begin, Sharing.spread
        commit, step, rename = Pace.commit, Worker.step, os.replace

        def running(executor: Executor, task: Task) -> None:
            count = len(executor.order)
            places = {Moment.FIRST_TASK: 0, Moment.MIDDLE_TASK: count // 2, Moment.LAST_TASK: count - 1}
            if self.is_now(executor.node) and executor.order.index(task) == places.get(moment):
                die()
            run_task(executor, task)

        def taking(reduce: AllReduce, *arguments: Any) -> Iterator[Any]:
            yield from take(reduce, *arguments)
            if self.is_now(reduce.node) and moment is Moment.SYNC:
                die()

        def sharing(own: Sharing) -> Iterator[Any]:
            if self.is_now(own.node) and moment is Moment.FIGURES:
                die()
            yield from begin(own)

        def spreading(own: Sharing) -> Iterator[Any]:
            messages = spread(own)
            if self.is_now(own.node) and moment is Moment.TOLD_ONE:
                # Not the first: that is a replica of its stage.
                *_, last = messages
                yield last
                threading.Timer(0.2, die).start()
            else:
                yield from messages

        def committing(pace: Pace, iteration: int, figures: Any) -> None:
            commit(pace, iteration, figures)
            if self.is_now(self.here) and moment is Moment.COMMITTED:
                die()

        def stepping(worker: Worker, *arguments: Any) -> Any:
            cause = step(worker, *arguments)
            if self.is_now(worker.job.node) and moment is Moment.STEPPED:
                die()
            return cause

        def renaming(source: Any, target: Any) -> None:
            if self.is_now(self.here) and moment is Moment.SAVING and "stage-" in str(target):
                die()
            rename(source, target)

        os.replace = renaming  # type: ignore[assignment]
        Executor.run_task, AllReduce.take, Sharing.begin, Sharing.spread = running, taking, sharing, spreading  # type: ignore[method-assign]
        Pace.commit, Worker.step = committing, stepping  # type: ignore[method-assign]

    def die_taking_over(self, second: int) -> None:
        """Let another node die in the same iteration, before it sends heirs of the first what they need."""
        take_up = Executor.take_up

        def going_on(executor: Executor, plan: Any, view: int) -> None:
            if executor.node == second and executor.iteration == ITERATION:
                die()
            take_up(executor, plan, view)

        Executor.take_up = going_on  # type: ignore[method-assign]

    def die_after_inherited_work(self, second: int, heir: int) -> None:
        """Let another node die once an heir has done a backward more, which then waits for the next view."""
        # Made before the launcher forks: all nodes have the same one.
        is_done = multiprocessing.get_context("fork").Event()
        take_up, run_task = Executor.take_up, Executor.run_task
        inherits = False

        def die_then() -> None:
            is_done.wait()
            die()

        def going_on(executor: Executor, plan: Any, view: int) -> None:
            nonlocal inherits
            take_up(executor, plan, view)
            if executor.iteration == ITERATION and not is_done.is_set():
                inherits = executor.node == heir
                if executor.node == second:
                    threading.Thread(target=die_then, daemon=True).start()

        def running(executor: Executor, task: Task) -> None:
            nonlocal inherits
            run_task(executor, task)
            if inherits and task.kind is Kind.BACKWARD:
                inherits = False
                is_done.set()
                with executor.inbox.changed:
                    executor.inbox.changed.wait_for(lambda: executor.inbox.interrupted)

        Executor.take_up, Executor.run_task = going_on, running  # type: ignore[method-assign]

    def cut(self, other: int) -> None:
        """Lose the link to another node for good."""
        self.follow()
        run_task, introduce = Executor.run_task, PeerStreams.introduce
        connections: dict[bytes, Any] = {}
        is_cut = False

        async def introducing(streams: PeerStreams, connection: Any, identity: bytes, offset: Any) -> Any:
            connections[identity] = connection
            return await introduce(streams, connection, identity, offset)

        def cut_now(links: Links) -> None:
            async def refuse(*_: object) -> Any:
                raise OSError("the cable is cut")

            links.sender(other).connect = refuse
            if links.members[other] in connections:
                connections[links.members[other]].shutdown(2)

        def running(executor: Executor, task: Task) -> None:
            nonlocal is_cut
            if self.is_now(executor.node) and not is_cut:
                is_cut = True
                links = executor.send.__self__  # type: ignore[attr-defined]
                links.loop.call_soon_threadsafe(cut_now, links)
            run_task(executor, task)

        PeerStreams.introduce, Executor.run_task = introducing, running  # type: ignore[method-assign]


if __name__ == "__main__":
    first, *others = sys.argv[2].split(",")
    patches = Patches(int(first))
    if sys.argv[1].startswith(CUT):
        patches.cut(int(sys.argv[1].removeprefix(CUT)))
    else:
        patches.die_at(Moment[sys.argv[1]])
    for other in others:
        second, _, heir = other.partition("@")
        if heir:
            patches.die_after_inherited_work(int(second), int(heir))
        else:
            patches.die_taking_over(int(second))
    sys.exit(main(sys.argv[3:]))
