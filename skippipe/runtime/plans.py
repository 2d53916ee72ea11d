"""The plans of a run's views: of those who are left, of those who are back, and of the iterations in between."""

from __future__ import annotations

from collections.abc import Collection

from skippipe.runtime.job import Job
from skippipe.schedule import Plan
from skippipe.survival.succession import plan_of_the_living, plan_of_what_follows
from skippipe.survival.view import View


class Plans:
    """All nodes of a run find the same plans."""

    def __init__(self, job: Job) -> None:
        schedule = job.schedule
        self.first = job.plan
        self.costs, self.memory = schedule.costs, schedule.pipeline.memory
        self.following: dict[int, Plan] = {}
        """What follows on takeovers, by the views' numbers."""
        self.bandwidth, self.moved = schedule.bandwidth_gib_s, schedule.pipeline.sync_bytes

    def of(self, view: View, iteration: int) -> Plan:
        """What is run in an iteration of a view; after a takeover it may have another order, the same on all nodes."""
        if view.way != "takeover" or iteration == view.first_iteration:
            return view.plan
        if view.number not in self.following:
            self.following[view.number] = plan_of_what_follows(view.plan, self.costs, self.memory)
        return self.following[view.number]

    def succeed(self, view: View, iteration: int, lost: Collection[int]) -> Plan:
        """The plan of those who are left of a view, for an iteration that may be running."""
        return plan_of_the_living(self.of(view, iteration), lost, self.costs, self.bandwidth, self.moved)

    def settle(self, members: Collection[int]) -> Plan:
        """The plan of iterations that these nodes begin together: the run's first one, with heirs for who is missing.

        So whoever comes back gets back what it had.
        """
        missing = self.first.stage_of().keys() - set(members)
        if not missing:
            return self.first
        left = plan_of_the_living(self.first, missing, self.costs, self.bandwidth, self.moved)
        return plan_of_what_follows(left, self.costs, self.memory)
