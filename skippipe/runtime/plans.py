"""The plans of a run's views: of those who are left, of those who are back, and of the iterations in between."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from skippipe.errors import UserError
from skippipe.runtime.holding import newest_checkpoint
from skippipe.runtime.job import Job
from skippipe.schedule import Plan
from skippipe.survival.skipping import paths_without
from skippipe.survival.succession import (
    Paths,
    SlowHeirsError,
    StageLostError,
    Stages,
    is_of_heirs,
    plan_first_served,
    plan_of_the_living,
    plan_of_what_follows,
    sync_of,
)
from skippipe.survival.view import View

TWICE = 2.0
"""Heirs that take longer than that, over others, cost more than all that is done twice for these."""
MOST_KEPT = 16
"""Plans of a kind that are kept: a run may last for thousands of views."""


class Plans:
    """All nodes of a run find the same plans."""

    def __init__(self, job: Job) -> None:
        schedule = job.schedule
        self.job, self.first = job, job.plan
        self.costs, self.memory = schedule.costs, schedule.pipeline.memory
        self.following: dict[int, Plan] = {}
        """What follows on the last takeovers, by the views' numbers."""
        self.bandwidth, self.moved = schedule.bandwidth_gib_s, schedule.pipeline.sync_bytes
        self.searched: dict[tuple[int, ...], Plan] = {}
        """The last plans that were found while some nodes were missing, by those who were there."""
        self.offered: tuple[int, Plan] | None = None
        """A better plan for a view, by the view's number."""

    def of(self, view: View, iteration: int) -> Plan:
        """What is run in an iteration of a view; after a takeover it may have another order, the same on all nodes."""
        if view.way != "takeover" or iteration == view.first_iteration:
            return view.plan
        if view.number not in self.following:
            self.following[view.number] = plan_of_what_follows(view.plan, self.costs, self.memory)
            drop_oldest(self.following)
        return self.following[view.number]

    def succeed(self, view: View, iteration: int, lost: Collection[int]) -> Plan:
        """The plan of those who are left of a view, for an iteration that may be running.

        SlowHeirsError if it is better to do that again on nodes that are chosen anew.
        """
        before = self.of(view, iteration)
        heirs = self.left_of(before, lost)
        if self.faster(heirs, before, lost) is not heirs:
            raise SlowHeirsError
        return heirs

    def faster(self, heirs: Plan, before: Plan, lost: Collection[int]) -> Plan:
        """A plan with heirs, or one on nodes that are chosen anew if heirs take much longer than these and before."""
        if not self.is_slow(heirs, before):
            return heirs
        anew = self.skip(before, lost)
        return anew if self.is_slow(heirs, anew) else heirs

    def left_of(self, plan: Plan, lost: Collection[int]) -> Plan:
        """A plan with heirs in the iteration that is running; StageLostError if a stage has nobody left."""
        return plan_of_the_living(plan, lost, self.costs, self.bandwidth, self.moved)

    def inherited(self, plan: Plan, lost: Collection[int]) -> Plan:
        """A plan with heirs for iterations from their beginning, however slow; StageLostError as left_of."""
        return plan_of_what_follows(self.left_of(plan, lost), self.costs, self.memory)

    def is_slow(self, plan: Plan, other: Plan) -> bool:
        """Whether a plan takes so much longer than another one that all may be done twice."""
        return plan.expected_step_s > TWICE * other.expected_step_s

    def restart(self, plan: Plan, lost: Collection[int]) -> Plan:
        """The plan of those who are left of a plan, for iterations from their beginning; lost stages are skipped."""
        if not lost:
            return plan
        try:
            follows = self.inherited(plan, lost)
        except StageLostError:
            return self.skip(plan, lost)
        return self.faster(follows, plan, lost)

    def skip(self, plan: Plan, lost: Collection[int]) -> Plan:
        """The plan of those who are left of a plan, stages perhaps not; StageLostError if they can't go on so."""
        return self.plan_on(tuple(tuple(node for node in stage if node not in lost) for stage in plan.stages), plan)

    def restorer(self, plan: Plan, lost: Collection[int], able: Collection[int]) -> int | None:
        """Who of the `able` restores the first stage of a plan from a checkpoint; None if nobody can.

        It is on this machine, whose disk has one, and of the stage with most nodes left: never the last of a stage.
        """
        left = [[node for node in stage if node not in lost] for stage in plan.stages]
        here = set(able).intersection(self.job.endpoint.local)
        found = [(-len(stage), node) for stage in left if len(stage) > 1 for node in stage if node in here]
        return min(found)[1] if found and newest_checkpoint(self.job, 0) is not None else None

    def with_first(self, plan: Plan, lost: Collection[int], first: Collection[int]) -> Plan:
        """The plan of those who are left of a plan if `first` are the nodes of the first stage; StageLostError."""
        others = tuple(tuple(node for node in stage if node not in {*lost, *first}) for stage in plan.stages[1:])
        return self.plan_on((tuple(first), *others), plan)

    def plan_on(self, stages: Stages, plan: Plan) -> Plan:
        """A plan's microbatches on other stages, some of which may be empty; StageLostError if they can't go on so."""
        plans = [self.served(stages, paths_without(plan, stages, self.costs, is_anew)) for is_anew in (False, True)]
        return min(plans, key=lambda found: found.expected_step_s)

    def served(self, stages: Stages, paths: Paths) -> Plan:
        """First come, first served."""
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
        lost = self.first.stage_of().keys() - set(members)
        if lost.issuperset(self.first.stages[0]):
            # Whoever has restored the first stage goes on with it.
            return self.with_first(self.first, lost, [node for node in before.stages[0] if node in members])
        return self.restart(self.first, lost)

    def is_searched(self, view: View) -> bool:
        """Whether a view's plan was searched for its members."""
        return view.way == "boundary" and not view.joined and not is_of_heirs(view.plan)

    def offer(self, view: View, plan: Plan) -> None:
        """A better plan for a view has been found."""
        self.offered = view.number, plan

    def better(self, view: View) -> Plan | None:
        """A better plan for a view, if one has been found."""
        return self.offered[1] if self.offered is not None and self.offered[0] == view.number else None

    def note(self, view: View) -> None:
        """Remember the plan of a view that is gone on in, if it was searched for its members."""
        if self.is_searched(view):
            # As the newest, even if there was one for them.
            self.searched.pop(view.members, None)
            self.searched[view.members] = view.plan
            drop_oldest(self.searched)


def drop_oldest(plans: dict[Any, Plan]) -> None:
    """Keep the MOST_KEPT that were put in last."""
    while len(plans) > MOST_KEPT:
        del plans[next(iter(plans))]
