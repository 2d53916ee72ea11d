"""The plans of a run's views: of those who are left, of those who are back, and of the iterations in between."""

from __future__ import annotations

from collections.abc import Collection

from skippipe.errors import UserError
from skippipe.runtime.job import Job
from skippipe.schedule import Plan
from skippipe.survival.skipping import paths_without
from skippipe.survival.succession import (
    StageLostError,
    plan_first_served,
    plan_of_the_living,
    plan_of_what_follows,
    sync_of,
)
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
        self.searched: dict[tuple[int, ...], Plan] = {}
        """Plans that were found while some nodes were missing, by those who were there."""
        self.offered: tuple[int, Plan] | None = None
        """A better plan for a view, by the view's number."""

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

    def restart(self, plan: Plan, lost: Collection[int]) -> Plan:
        """The plan of those who are left of a plan, for iterations from their beginning; lost stages are skipped."""
        if not lost:
            return plan
        try:
            left = plan_of_the_living(plan, lost, self.costs, self.bandwidth, self.moved)
        except StageLostError:
            return self.skip(plan, lost)
        return plan_of_what_follows(left, self.costs, self.memory)

    def skip(self, plan: Plan, lost: Collection[int]) -> Plan:
        """The plan of those who are left of a plan if a stage is not; StageLostError if they can't go on so."""
        stages = tuple(tuple(node for node in stage if node not in lost) for stage in plan.stages)
        paths = paths_without(plan, stages, self.costs)
        sync_s = sync_of(stages, self.bandwidth, self.moved)
        try:
            return plan_first_served(stages, paths, sync_s, self.costs, self.memory)
        except UserError:
            # Nobody waits for ever if nodes may hold all that comes.
            return plan_first_served(stages, paths, sync_s, self.costs, len(paths))

    def settle(self, members: Collection[int], before: Plan) -> Plan:
        """The plan of iterations that these nodes begin together: what was once found for them, if it was.

        Else the run's first one, with heirs for who is missing: whoever comes back gets back what it had. If a stage
        had nobody in the plan before, the first one is all that is known to suit those who are left.
        """
        if all(before.stages) and (found := self.searched.get(tuple(sorted(members)))):
            return found
        return self.restart(self.first, self.first.stage_of().keys() - set(members))

    def offer(self, view: View, plan: Plan) -> None:
        """A better plan for a view has been found."""
        self.offered = view.number, plan

    def better(self, view: View) -> Plan | None:
        """A better plan for a view, if one has been found."""
        return self.offered[1] if self.offered is not None and self.offered[0] == view.number else None

    def note(self, view: View) -> None:
        """Remember the plan of a view that is gone on in, if it was searched for its members."""
        if view.way == "boundary" and not view.joined:
            self.searched[view.members] = view.plan
