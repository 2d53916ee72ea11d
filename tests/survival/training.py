"""Nodes that train in views with faults at random moments, and what must hold of what they have done."""

from __future__ import annotations

from collections import defaultdict

from skippipe.survival.agreement import Agreement
from skippipe.survival.course import Course, Report
from skippipe.survival.view import View
from tests.survival.faults import Torture
from tests.survival.planner import plan_of
from tests.survival.process import Process, ViolationError
from tests.survival.trainer import Content, Given, Trainer

MORE = 3
"""Iterations that must be done in the newest view in the end."""


class Training(Torture):
    """Nodes that train."""

    def __init__(self, seed: int, machine: type[Agreement] = Agreement) -> None:
        super().__init__(seed, machine)
        self.left_out = 0.0
        self.donors_killed = self.random.choice([0.0, 0.5])
        """Share of donors that die soon, and of others while nodes move."""
        self.step_s = 0.0
        """That an iteration takes at least."""
        self.has_ended = False
        self.has_two_stages = self.first > 3
        self.reports: list[Report] = []
        self.done: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
        """Nodes that have done their part of an iteration, by view and iteration."""
        self.handed: dict[tuple[int, int, int], Given] = {}
        """The state that a node gets in a view from another one, by all three."""

    @property
    def trainers(self) -> list[Trainer]:
        return [process for process in self.processes.values() if isinstance(process, Trainer)]

    def new_process(self, node: int, birth: int) -> Process:
        trainer = Trainer(self, node, birth, pace_s=self.random.choice([0.1, 0.4, 2.0]))
        if birth == 0:
            second = range(self.first // 2) if self.has_two_stages else ()
            view = View(0, 0, "start", "the run begins", plan_of(range(self.first), second), -1)
            trainer.course, trainer.committed = Course(view, -1, -1), -1
            trainer.stage = view.plan.stage_of()[node]
        self.at(self.random.random(), trainer.work)
        return trainer

    def calm(self) -> None:
        self.donors_killed = 0.0
        super().calm()

    def work(self) -> None:
        """All who are up to date have the same history."""
        newest = max(self.adopted, default=0)
        current = [t.history for t in self.trainers if t.view == newest and t.course.has_state]
        decided = [self.values[int(self.adopted[number].proposal.value)] for number in sorted(self.adopted)]
        views = [value.content for value in decided if isinstance(value, Content) and value.content is not None]
        for history in current:
            self.check_rule(history, views)
            for other in current:
                if any(here != there for here, there in zip(history, other, strict=False)):
                    raise ViolationError(f"an iteration was done in two views: {history}, {other}")

    def check_rule(self, history: list[int], views: list[View]) -> None:
        """Of the views that begin with an iteration or before, the last one is that in which it was done."""
        for iteration, number in enumerate(history):
            begun = [view.number for view in views if view.first_iteration <= iteration]
            if max([0, *begun]) != number:
                raise ViolationError(f"iteration {iteration} was done in view {number}, not {max([0, *begun])}")

    def is_well(self) -> bool:
        self.work()
        if self.has_ended:
            return True
        running = [(t.course.running, t.course) for t in self.trainers]
        return super().is_well() and all(
            view is not None and not course.waiting and course.committed >= view.first_iteration + MORE
            for view, course in running
        )
