"""`python -m tests.end_to_end.moving MOMENT NODE run ...`: nodes that change stage, and one that dies while they do.

After iteration 0 node 0 finds a better plan, in which nodes 3 and 5 exchange their stages and all microbatches take
other paths. MOMENT says when, in its first iteration, the node dies.
"""

from __future__ import annotations

import sys
from enum import Enum
from typing import Any

import numpy as np

from skippipe.__main__ import main
from skippipe.runtime.executor import Executor
from skippipe.runtime.member import Member
from skippipe.runtime.pace import Pace
from skippipe.runtime.worker import Worker
from skippipe.schedule import Plan, Schedule
from skippipe.schedule.plan import Task, make_plan
from skippipe.transport.handover import Handover
from tests.end_to_end.dying import die

STAGES = [[0, 1], [2, 4, 5], [3, 6]]
RELAYS = [6, 3, 5, 2, 6, 2, 5, 4]
MOVERS = (3, 5)


class Moment(Enum):
    """When a node dies; its value is whether the iteration is begun again."""

    NEVER = "not at all", False
    HANDING = "before it hands over what another one needs", True
    HANDED = "once it has got its stage's state", True
    MIDDLE_TASK = "between two tasks", True
    FIGURES = "before it shares its figures", True
    COMMITTED = "when it has everyone's figures", False

    @property
    def is_redone(self) -> bool:
        """Whether nothing of the new plan stays."""
        return self.value[1]


def better_plan(schedule: Schedule, plan: Plan) -> Plan:
    """The plan that node 0 finds."""
    paths = np.array([[path[0], relay] for path, relay in zip(plan.paths, RELAYS, strict=True)])
    return make_plan(STAGES, paths, schedule.costs, schedule.pipeline.memory, [0.05] * 3, {"solver": "by hand"})


class Moves:
    """Plants the better plan, and a death."""

    def __init__(self, moment: Moment, node: int) -> None:
        self.moment, self.node = moment, node
        self.here = -1
        """This process's node."""
        self.is_moving = False
        """Whether this process is in the first iteration of the view with the better plan."""

    def dies(self, node: int, moment: Moment) -> None:
        """The moment has come for a node."""
        if self.is_moving and (node, moment) == (self.node, self.moment):
            die()

    def patch(self) -> None:
        """Do it in all processes that are forked from here on."""
        step, take_up, receive = Worker.step, Member.take_up, Member.receive_state
        begin, run_task = Handover.begin, Executor.run_task
        commit, sync = Pace.commit, Worker.sync

        def stepping(worker: Worker, iteration: int, figures: Any) -> Any:
            if worker.job.node == 0 and iteration == 0:
                worker.plans.offer(worker.view, better_plan(worker.job.schedule, worker.job.plan))
                worker.survivors.found_better()
            self.is_moving = False
            return step(worker, iteration, figures)

        def taking_up(member: Member, iteration: int) -> bool:
            begins_again = take_up(member, iteration)
            view, self.here = member.view, member.job.node
            self.is_moving = view.moved == MOVERS and view.first_iteration == iteration
            return begins_again

        def receiving(member: Member, *arguments: Any) -> Any:
            received = receive(member, *arguments)
            self.dies(member.job.node, Moment.HANDED)
            return received

        def beginning(handover: Handover) -> Any:
            if handover.node == handover.members[0]:
                self.dies(handover.node, Moment.HANDING)
            return begin(handover)

        def running(executor: Executor, task: Task) -> None:
            if executor.order.index(task) == len(executor.order) // 2:
                self.dies(executor.node, Moment.MIDDLE_TASK)
            run_task(executor, task)

        def syncing(worker: Worker, *arguments: Any) -> Any:
            self.dies(worker.job.node, Moment.FIGURES)
            return sync(worker, *arguments)

        def committing(pace: Pace, iteration: int, figures: Any) -> None:
            commit(pace, iteration, figures)
            self.dies(self.here, Moment.COMMITTED)

        Worker.step, Member.take_up, Member.receive_state = stepping, taking_up, receiving  # type: ignore[method-assign]
        Handover.begin, Executor.run_task = beginning, running  # type: ignore[method-assign]
        Pace.commit, Worker.sync = committing, syncing  # type: ignore[method-assign]


if __name__ == "__main__":
    Moves(Moment[sys.argv[1]], int(sys.argv[2])).patch()
    sys.exit(main(sys.argv[3:]))
