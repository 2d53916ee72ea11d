"""Looks for a better plan for nodes that go on without others, in a process of its own, while they go on."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable

import numpy as np

from skippipe.errors import UserError
from skippipe.runtime.job import Job
from skippipe.runtime.plans import Plans
from skippipe.schedule import Plan, Schedule
from skippipe.schedule.costs import head_parameters, layer_parameters, transfer_seconds
from skippipe.schedule.subset import plan_for_all, schedule_of
from skippipe.survival.following import donors_of
from skippipe.survival.succession import StageLostError
from skippipe.survival.view import View

logger = logging.getLogger(__name__)

SEARCH = "skippipe.search.replanning"
CHAINS = 2
PAYS_BACK_WITHIN = 50
"""Iterations in which a change must have saved what it costs."""
BYTES_OF_A_PARAMETER = 12
"""Of its weight and both moments in fp32, as they are handed over."""


class Replanner:
    """The search for the view that this node is in; all methods are called in one thread."""

    def __init__(self, job: Job, plans: Plans, found: Callable[[], None]) -> None:
        """`found` is called in a thread of its own once `plans` has a better plan for the view."""
        self.job, self.plans, self.found = job, plans, found
        self.seconds = job.config.peers.replan_seconds
        self.process: subprocess.Popen[str] | None = None

    def look(self, view: View, iteration: int) -> None:
        """Search for a view that has begun, if somebody is missing in it and it falls to this node."""
        self.stop()
        is_whole = len(view.members) == self.job.schedule.nodes
        if not self.seconds or is_whole or self.plans.is_searched(view) or self.job.node != min(view.members):
            return
        plan = self.plans.of(view, view.first_iteration + 1)
        schedule = self.begin_with(view, plan)
        if schedule is None:
            return
        arguments = [f"{self.seconds:g}", str(min(CHAINS, os.cpu_count() or 1)), str(os.getpid())]
        self.process = subprocess.Popen(
            [sys.executable, "-m", SEARCH, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        logger.info("looking for a better plan than %.2f s for view %d", plan.expected_step_s, view.number)
        given = self.process, schedule.to_json(), view, plan, iteration
        threading.Thread(target=self.wait, args=given, daemon=True).start()

    def begin_with(self, view: View, plan: Plan) -> Schedule | None:
        """The schedule of a view's members whose plan the search begins with; None if there is none.

        It is the plan that they have, or the run's first one with heirs, if microbatches go round a stage in that one:
        the search keeps how often each stage is visited.
        """
        if not all(plan.stages):
            # Whoever comes back for the stage restores it, nobody moves there to save time.
            return None
        schedule = self.schedule_for(view, plan)
        if schedule is None:
            lost = self.plans.first.stage_of().keys() - set(view.members)
            with contextlib.suppress(StageLostError):
                schedule = self.schedule_for(view, self.plans.inherited(self.plans.first, lost))
        return schedule

    def schedule_for(self, view: View, plan: Plan) -> Schedule | None:
        """The schedule of a view's members alone with a plan of theirs; None if no search can begin with that."""
        try:
            schedule = schedule_of(self.job.schedule, view.members, "heirs", plan)
            schedule.validate()
        except UserError as error:
            logger.info("no search for a better plan than %.2f s: %s", plan.expected_step_s, error)
            return None
        return schedule

    def wait(self, process: subprocess.Popen[str], text: str, view: View, plan: Plan, iteration: int) -> None:
        """Offer what the search finds, if it pays (a thread of its own)."""
        try:
            output, errors = process.communicate(text)
        except OSError as error:
            logger.warning("no better plan: its search can't be told what to do (%s)", error)
            return
        if process.returncode:
            if process is self.process:
                logger.warning("no better plan: its search ended with %d: %s", process.returncode, errors[-500:])
            return
        better = plan_for_all(Schedule.from_json(output).plan("joint"), view.members)
        left = min(PAYS_BACK_WITHIN, self.job.config.iterations - iteration)
        saved_s = plan.expected_step_s - better.expected_step_s
        moving_s = moving_seconds(self.job.schedule, self.job.prepared.vocabulary, plan, better)
        logger.info(
            "a plan of %.2f s instead of %.2f s was found; moving takes about %.1f s",
            better.expected_step_s,
            plan.expected_step_s,
            moving_s,
        )
        if saved_s * left > moving_s:
            self.plans.offer(view, better)
            self.found()

    def stop(self) -> None:
        """End the search, if there is one."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()


def moving_seconds(schedule: Schedule, vocabulary: int, before: Plan, plan: Plan) -> float:
    """What the states of all nodes that change stage take on the schedule's links: the longest that a donor sends."""
    pipeline, stage_of = schedule.pipeline, plan.stage_of()
    layers = pipeline.layers_per_stage * layer_parameters(pipeline.d_model, pipeline.hidden_width)
    head = head_parameters(pipeline.d_model, vocabulary)
    sending_s = np.zeros(schedule.nodes)
    for node, donor in donors_of(before, plan)[0].items():
        moved = BYTES_OF_A_PARAMETER * (layers + (head if stage_of[node] == 0 else 0))
        sending_s[donor] += transfer_seconds(moved, schedule.bandwidth_gib_s[donor, node])
        sending_s[donor] += schedule.latency_ms[donor, node] / 1000
    return float(sending_s.max())
