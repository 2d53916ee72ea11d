"""A simulated node that trains: what it does in which view, holds, hands over and gets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skippipe.survival.course import Course, Rows
from skippipe.survival.following import next_view
from skippipe.survival.succession import StageLostError
from skippipe.survival.view import View
from tests.survival.planner import Planner
from tests.survival.process import Process, Value, ViolationError

if TYPE_CHECKING:
    from tests.survival.training import Training

Given = tuple[list[int], Rows, int | None]
"""A node's history, the figures of its last iteration, and a stage."""


@dataclass
class Content(Value):
    """A view, or None for the end."""

    content: View | None = None


@dataclass
class Trainer(Process):
    """A process that also trains: it does nothing but remember in which view each iteration was done."""

    world: Training
    course: Course = field(default_factory=lambda: Course(None, -1, has_state=False))
    history: list[int] = field(default_factory=list)
    is_running: bool = False
    pace_s: float = 0.0
    """Longest time between two things that it does."""
    began_at: float = 0.0
    """When it began the iteration that it is in, or was last in."""
    stage: int | None = None
    """That it holds the state of."""
    former: int | None = None
    """That it held before it moved."""

    @property
    def planner(self) -> Planner:
        return Planner(self.course, self.world.random if self.world.has_two_stages else None)

    # As the agreement's application.

    def report(self, urgent: bool) -> bytes:
        report = self.course.report(urgent)
        self.world.reports.append(report)
        self.is_frozen = self.course.is_frozen
        return b"%d" % (len(self.world.reports) - 1)

    def propose(self, reports: dict[int, bytes], lost: frozenset[int]) -> bytes:
        known = {node: self.world.reports[int(report)] for node, report in reports.items()}
        standing, ballot = self.machine.standing, self.machine.ballot
        assert ballot is not None
        joiners = {node for node, birth in standing.joining.items() if standing.is_news(node, birth)} - known.keys()
        content, members = None, tuple(sorted(known))
        try:
            content = next_view(self.course, known, joiners, self.planner, None)
            members = content.members
        except StageLostError:
            self.world.counts["lost a stage"] += 1
        told = {node: (report.is_frozen, report.committed) for node, report in known.items()}
        self.world.values.append(Content(self.view, ballot.urgent, members, told, content))
        return b"%d" % (len(self.world.values) - 1)

    def adopt(self, number: int, value: bytes) -> None:
        super().adopt(number, value)
        decided = self.world.values[int(value)]
        assert isinstance(decided, Content)
        if decided.content is None:
            self.world.has_ended = True
        elif self.course.adopt(decided.content):
            self.committed = self.course.committed
        else:
            self.world.counts["left out in between"] += 1
            self.world.at(self.world.random.random(), lambda: self.world.come_back(self))

    def joining(self, node: int) -> None:
        if not self.world.has_ended:
            super().joining(node)

    def joins_again(self) -> bool:
        if not self.course.has_state:
            self.course.give_up()
        return not self.course.has_state

    # As the torch thread.

    def work(self) -> None:
        """The next thing to do, and again after a while."""
        if self.world.processes.get(self.node) is not self:
            return
        self.world.at(self.world.random.uniform(0.02, self.pace_s), self.work)
        if self.is_stopped or self.machine.is_excluded:
            return
        iteration = len(self.history)
        if not self.course.has_state:
            self.arrive()
        elif any(view.way != "boundary" for view in self.course.waiting):
            self.take_up(iteration)
            assert self.course.running is not None
            if self.is_running and self.course.running.committed >= iteration:
                self.finish(self.course.figures)
        elif self.is_running:
            self.run(iteration)
        elif self.course.may_begin(iteration):
            self.course.begun, self.is_running, self.began_at = iteration, True, self.world.now
            self.take_up(iteration)

    def arrive(self) -> None:
        """Wait for a view, then for the state of a donor."""
        if self.course.running is None and self.course.waiting:
            self.course.take_up(self.course.waiting[0].first_iteration)
        if self.course.running is not None:
            given = self.given(self.course.running)
            if given is not None and not self.course.is_frozen:
                history, figures, self.stage = given
                self.history = list(history)
                self.course.complete(len(history) - 1, figures)
                self.committed = self.course.committed
                self.world.counts["came back"] += 1
                self.hand_on(self.course.running)

    def take_up(self, iteration: int) -> None:
        """Go on in what is due; hand the state to those who have joined."""
        before = self.course.running
        views = self.course.take_up(iteration)
        if views:
            if self.is_running and views[-1].committed < iteration:
                self.check_base(before, views)
            self.world.counts[views[-1].way] += 1
            self.world.counts["passed over"] += len(views) - 1
            self.hand_over(views[-1])
            self.change_stage(views[-1].plan.stage_of()[self.node])
            for view in views:
                self.restore_first(view)

    def restore_first(self, view: View) -> None:
        """Have the first stage from a checkpoint, if that is so in a view."""
        if view.restored.get(self.node) == ():
            if len(self.history) != view.first_iteration:
                raise ViolationError(f"node {self.node} leaves its stage before it has done what is committed")
            self.stage = view.plan.stage_of()[self.node]
            self.world.counts["restored the first"] += 1

    def change_stage(self, stage: int) -> None:
        """Have another one, once its state is there, or go back to the one before."""
        if self.stage is None or (self.former is not None and self.former == stage):
            self.stage, self.former = self.former, None
            self.world.counts["went back"] += 1
        if stage != self.stage:
            self.stage, self.former = None, self.stage
            self.world.counts["moves"] += 1
            if self.world.random.random() < self.world.donors_killed:
                unlucky = self.world.random.choice(list(self.world.processes.values()))
                self.world.at(2 * self.pace_s * self.world.random.random(), lambda: self.world.kill(unlucky))

    def hand_over(self, view: View) -> None:
        """Give others what they get in a view, as it is when that begins."""
        is_helping = False
        for node, donor in view.donors.items():
            is_restored = donor in view.restored and view.plan.stage_of()[node] == view.plan.stage_of()[donor]
            if donor == self.node and not is_restored:
                is_helping = True
                if self.stage != view.plan.stage_of()[node]:
                    raise ViolationError(
                        f"node {self.node} gives stage {self.stage} to node {node} in view {view.number}"
                    )
                self.world.handed[view.number, node, self.node] = list(self.history), self.course.figures, self.stage
        for node, near in view.restored.items():
            if self.node in near:
                is_helping = True
                stage = view.plan.stage_of()[node]
                self.world.handed[view.number, node, self.node] = list(self.history), self.course.figures, stage
        assert not is_helping or len(self.history) == view.first_iteration
        if is_helping and self.world.random.random() < self.world.donors_killed:
            self.world.at(self.world.random.random(), lambda: self.world.kill(self))

    def given(self, view: View) -> Given | None:
        """What this node gets in a view, if all of it is there."""
        if self.node not in view.donors.keys() | view.restored.keys():
            raise ViolationError(f"node {self.node} has no state in view {view.number}, and nobody to get it from")
        donors = view.restored.get(self.node) or (view.donors[self.node],)
        parts = [self.world.handed.get((view.number, self.node, donor)) for donor in donors]
        return parts[0] if all(part is not None for part in parts) else None

    def hand_on(self, view: View) -> None:
        """Give other nodes the stage that this one has restored."""
        if self.node in view.restored:
            self.world.counts["restored"] += 1
            for node, donor in view.donors.items():
                if donor == self.node and view.plan.stage_of()[node] == self.stage:
                    given = list(self.history), self.course.figures, self.stage
                    self.world.handed[view.number, node, self.node] = given

    def receive_state(self, view: View) -> None:
        """Look whether the state of the stage that this node moves to is there."""
        given = self.given(view)
        if given is not None:
            history, _, self.stage = given
            if history != self.history:
                raise ViolationError(f"node {self.node} moves, and is given another history than its own")
            self.hand_on(view)

    def check_base(self, before: View | None, views: list[View]) -> None:
        """Heirs go on with what was running: the plans between are those of takeovers, too."""
        if any(view.way == "redo" for view in views):
            return
        bases = {view.number: view.plan.search["base"] for view in views if view.way == "takeover"}
        number = views[-1].number
        while before is not None and number != before.number:
            if views[-1].way == "takeover" and number not in bases:
                raise ViolationError(f"view {views[-1].number} takes over from another plan than what is running")
            number = bases.get(number, before.number)

    def run(self, iteration: int) -> None:
        """Do this node's part; commit if all have done theirs in the same view."""
        view = self.course.running
        assert view is not None
        if self.stage is None:
            self.receive_state(view)
            return
        if self.stage != view.plan.stage_of()[self.node]:
            raise ViolationError(f"node {self.node} works on stage {self.stage} in view {view.number}")
        done = self.world.done[view.number, iteration]
        if self.world.now >= self.began_at + self.world.step_s:
            done.add(self.node)
        if done >= set(view.members) and not self.course.is_frozen:
            self.course.commit(iteration, {node: [float(view.number)] for node in view.members})
            self.committed = iteration
            self.finish(self.course.figures)

    def finish(self, figures: Rows) -> None:
        """Step: the figures say in which view the iteration was done."""
        if not figures:
            raise ViolationError(f"node {self.node} has no figures of iteration {len(self.history)}")
        self.history.append(int(next(iter(figures.values()))[0]))
        self.is_running, self.former = False, None
