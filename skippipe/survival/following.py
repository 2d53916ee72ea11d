"""What view follows on the newest one: whoever proposes makes it of what the members report."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from skippipe.schedule.plan import Plan
from skippipe.survival.course import Course, Report
from skippipe.survival.succession import NoHeirsError, StageLostError
from skippipe.survival.suspicion import to_exclude
from skippipe.survival.view import FIRST_RESTORED, View, Way


class Planner(Protocol):
    """What finds the plans of views."""

    def succeed(self, view: View, iteration: int, lost: Collection[int]) -> Plan:
        """Of those who are left of a view, for an iteration of it that may be running; NoHeirsError if none is good."""

    def restart(self, plan: Plan, lost: Collection[int]) -> Plan:
        """Of those who are left of a plan, for iterations from their beginning; StageLostError if there is none."""

    def skip(self, plan: Plan, lost: Collection[int]) -> Plan:
        """Of those who are left of a plan, some of whose stages may not be; StageLostError if they can't go on so."""

    def restorer(self, plan: Plan, lost: Collection[int], able: Collection[int]) -> int | None:
        """Who of the `able` restores the first stage, which has lost all nodes, from a checkpoint; None if nobody."""

    def with_first(self, plan: Plan, lost: Collection[int], first: Collection[int]) -> Plan:
        """Of those who are left of a plan, `first` being the nodes of its first stage; StageLostError."""

    def settle(self, members: Collection[int], before: Plan) -> Plan:
        """For iterations that these nodes begin together, who have not all been in the plan before."""

    def better(self, view: View) -> Plan | None:
        """A plan for the same nodes that is worth changing to, if one has been found."""


def next_view(
    course: Course,
    reports: Mapping[int, Report],
    joiners: Collection[int],
    planner: Planner,
    detected_s: float | None,
) -> View:
    """What follows on the newest view that was decided, whose members report, in the proposer's course.

    If all of them hold still, somebody is lost: the others go on without. Else joiners come in at a boundary, or all
    change to a better plan. StageLostError if nothing can follow.
    """
    newest = course.newest
    assert newest is not None
    if all(report.is_frozen for report in reports.values()):
        return after_a_loss(newest, reports, planner, detected_s)
    first = max(report.limit for report in reports.values()) + 1
    # The newest view may be one that nobody has begun: it is passed over then, if that brings joiners in sooner.
    before = course.view_of(first - 1) if joiners else None
    if before is None:
        before, first = newest, max(first, newest.first_iteration + 1)
    if joiners or reports.keys() != set(newest.members):
        plan = planner.settle({*reports, *joiners}, before.plan)
    else:
        plan = planner.better(newest) or planner.succeed(newest, first, ())
    joined = tuple(sorted(plan.stage_of().keys() - before.plan.stage_of().keys()))
    donors, restored = donors_of(before.plan, plan)
    moved = sorted((donors.keys() | restored.keys()) - set(joined))
    changes = {"joined": joined, "moved": moved}
    told = ", ".join(f"{what}: {', '.join(map(str, nodes))}" for what, nodes in changes.items() if nodes)
    return View(
        number=newest.number + 1,
        first_iteration=first,
        way="boundary",
        # Nobody moves to a better plan, nor if who was to join is gone again.
        reason=told or "moved: nobody",
        plan=plan,
        committed=-1,
        joined=joined,
        donors=donors,
        restored=restored,
        fallback=before.plan if moved else None,
        detected_s=detected_s,
    )


def donors_of(before: Plan, plan: Plan) -> tuple[dict[int, int], dict[int, tuple[int, ...]]]:
    """Whom each node of a plan gets its stage's state from that did not hold it in the one before: the lowest that did.

    If nobody did, one node restores the stage, and the others get it from that one: for each such node, who tells it
    how far the run is, and holds a neighbouring stage that the lost one can be made from.
    """
    held, there = before.stage_of(), plan.stage_of()
    stay = {stage: [node for node in nodes if held.get(node) == stage] for stage, nodes in enumerate(plan.stages)}
    donors: dict[int, int] = {}
    restored: dict[int, tuple[int, ...]] = {}
    for stage, nodes in enumerate(plan.stages):
        holders = [node for node in before.stages[stage] if node in there]
        if nodes and not holders:
            restored[nodes[0]] = neighbours_of(stage, stay)
            holders = [nodes[0]]
        donors |= {node: min(holders) for node in nodes if held.get(node) != stage and node not in restored}
    return donors, restored


def neighbours_of(stage: int, stay: Mapping[int, Sequence[int]]) -> tuple[int, ...]:
    """A node of the nearest stage before and after one, stage 0 only if there is no other; StageLostError if none is.

    `stay` has the nodes of each stage that hold it and go on to. Stages but the first have the same shapes.
    """
    alike = [other for other, nodes in stay.items() if nodes and other]
    near = [max((other for other in alike if other < stage), default=None)]
    near.append(min((other for other in alike if other > stage), default=None))
    found = tuple(min(stay[other]) for other in near if other is not None) or tuple(stay[0][:1])
    if not found or stage == 0:
        raise StageLostError([stage])
    return found


def after_a_loss(newest: View, reports: Mapping[int, Report], planner: Planner, detected_s: float | None) -> View:
    """Go on at once after the last iteration that anyone has committed, without the lost and those without a state.

    Nor with those who can't be reached by all others, though they have reported: the links that they need are gone.
    """
    # Who hangs says so itself: nobody else has to leave for that.
    hung = {node for report in reports.values() for node in report.hung}
    cut_off = hung | to_exclude({node: report.suspects for node, report in reports.items() if node not in hung})
    able = {node: report for node, report in reports.items() if report.has_state and node not in cut_off}
    if not able:
        raise StageLostError([stage for stage, nodes in enumerate(newest.plan.stages) if nodes])
    ahead = max(able.values(), key=lambda report: report.committed)
    first = ahead.committed + 1
    base = ahead.view or newest
    plan, way, restored = plan_after(base, first, able, planner)
    # Who joined with a view that is given up is in no stage.
    lost = tuple(sorted(set(base.members) - plan.stage_of().keys()))
    told = [f"lost: {', '.join(map(str, lost))}"] if lost else ["nobody is lost after all"]
    told += [f"{FIRST_RESTORED}: {node}" for node in restored]
    return View(
        number=newest.number + 1,
        first_iteration=first,
        way=way,
        reason="; ".join(told),
        plan=plan,
        committed=ahead.committed,
        figures={node: tuple(row) for node, row in ahead.figures.items()},
        lost=lost,
        restored=restored,
        detected_s=detected_s,
    )


def plan_after(
    base: View, first: int, able: Mapping[int, Report], planner: Planner
) -> tuple[Plan, Way, dict[int, tuple[int, ...]]]:
    """The plan of the `able` for iteration `first` of a view, how they go on, and who restores the first stage for it.

    Whoever does must have done all before, since it has another stage then; StageLostError if nobody can.
    """
    goes_back = base.fallback is not None and base.first_iteration == first
    plan = base.fallback if goes_back and base.fallback is not None else base.plan
    lost = plan.stage_of().keys() - able.keys()
    if lost.issuperset(plan.stages[0]):
        ahead = [node for node, report in able.items() if report.committed == first - 1]
        restorer = planner.restorer(plan, lost, ahead)
        if restorer is None:
            raise StageLostError([0])
        return planner.with_first(plan, lost, [restorer]), "redo", {restorer: ()}
    if goes_back:
        return planner.restart(plan, lost), "redo", {}
    try:
        return planner.succeed(base, first, lost), "takeover", {}
    except NoHeirsError:
        return planner.skip(plan, lost), "redo", {}
