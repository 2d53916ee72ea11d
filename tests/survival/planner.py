"""What finds the plans of views in simulated trainings: one stage or two, drawn at random."""

from __future__ import annotations

from collections.abc import Collection
from random import Random

from skippipe.schedule import Plan
from skippipe.survival.course import Course
from skippipe.survival.succession import StageLostError
from skippipe.survival.view import View


def plan_of(members: Collection[int], second: Collection[int] = (), base: int | None = None) -> Plan:
    """A plan with one stage or two, which says which view's plan it was made from if it is one for heirs."""
    stages = (tuple(sorted(set(members) - set(second))), tuple(sorted(second)))
    return Plan(stages, (), {}, (0.0, 0.0), 0.0, 0.0, {"base": base})


class Planner:
    """Plans of one stage, or of two if the view that is run has two."""

    def __init__(self, course: Course, draw: Random | None = None) -> None:
        """`draw` says who is in the second stage; without it there is one alone."""
        self.course, self.draw = course, draw

    def succeed(self, view: View, iteration: int, lost: Collection[int]) -> Plan:
        stages = [set(stage) - set(lost) for stage in view.plan.stages]
        if gone := [number for number, stage in enumerate(stages) if view.plan.stages[number] and not stage]:
            raise StageLostError(gone)
        return plan_of(stages[0] | stages[1], stages[1], view.number)

    def restart(self, plan: Plan, lost: Collection[int]) -> Plan:
        return self.skip(plan, lost)

    def skip(self, plan: Plan, lost: Collection[int]) -> Plan:
        first, second = (set(stage) - set(lost) for stage in plan.stages)
        if not first:
            raise StageLostError([0])
        return plan_of(first | second, second)

    def restorer(self, plan: Plan, lost: Collection[int], able: Collection[int]) -> int | None:
        second = set(plan.stages[1]) - set(lost)
        # It has no checkpoint, now and then.
        if self.draw is None or len(second) < 2 or not second & set(able) or self.draw.random() < 0.3:
            return None
        return min(second & set(able))

    def with_first(self, plan: Plan, lost: Collection[int], first: Collection[int]) -> Plan:
        second = set(plan.stages[1]) - set(lost) - set(first)
        return plan_of(second | set(first), second)

    def settle(self, members: Collection[int], before: Plan) -> Plan:
        first, second = (set(stage) & set(members) for stage in before.stages)
        if self.draw is None:
            return plan_of(members)
        # Stage 0 keeps somebody who holds it, in it or in the other one; the other one may be lost, and come back.
        moving = {node for node in members if self.draw.random() < 0.4}
        wanted = (set(members) - first) ^ moving
        if not wanted or not set(members) - wanted:
            return plan_of(members, second)
        return plan_of(members, wanted)

    def better(self, view: View) -> Plan | None:
        draws = self.draw is not None and self.draw.random() < 0.7
        return self.settle(view.members, view.plan) if draws else None
