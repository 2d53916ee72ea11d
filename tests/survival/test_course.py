"""Training in views, tortured: nobody works in one view on what others do in another, and all have the same history."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

from skippipe.schedule import Plan
from skippipe.survival.agreement import Agreement
from skippipe.survival.course import Course, Report, Rows, donor, next_view
from skippipe.survival.succession import StageLostError
from skippipe.survival.view import View
from tests.survival.faults import Torture
from tests.survival.simulation import Process, Value, ViolationError

MORE = 3
"""Iterations that must be done in the newest view in the end."""


def plan_of(members: Collection[int]) -> Plan:
    """A plan with one stage."""
    return Plan((tuple(sorted(members)),), (), {}, (0.0,), 0.0, 0.0)


@dataclass
class Content(Value):
    """A view, or None for the end."""

    content: View | None = None


@dataclass
class Trainer(Process):
    """A process that also trains: it does nothing but remember in which view each iteration was done."""

    course: Course = field(default_factory=lambda: Course(None, -1, has_state=False))
    history: list[int] = field(default_factory=list)
    is_running: bool = False

    @property
    def training(self) -> Training:
        assert isinstance(self.world, Training)
        return self.world

    # As the agreement's application.

    def report(self, urgent: bool) -> bytes:
        report = self.course.report(urgent)
        self.training.reports.append(report)
        self.is_frozen = self.course.is_frozen
        return b"%d" % (len(self.training.reports) - 1)

    def propose(self, reports: dict[int, bytes], lost: frozenset[int]) -> bytes:
        known = {node: self.training.reports[int(report)] for node, report in reports.items()}
        standing, newest, ballot = self.machine.standing, self.course.newest, self.machine.ballot
        assert newest is not None
        assert ballot is not None
        joiners = {node for node, birth in standing.joining.items() if standing.is_news(node, birth)} - known.keys()
        content, members = None, tuple(sorted(known))
        try:
            content = next_view(newest, known, joiners, succeed, plan_of, None)
            members = content.members
        except StageLostError:
            assert not any(report.has_state for report in known.values())
        told = {node: (report.is_frozen, report.committed) for node, report in known.items()}
        self.world.values.append(Content(self.view, ballot.urgent, members, told, content))
        return b"%d" % (len(self.world.values) - 1)

    def adopt(self, number: int, value: bytes) -> None:
        super().adopt(number, value)
        decided = self.world.values[int(value)]
        assert isinstance(decided, Content)
        if decided.content is None:
            self.training.has_ended = True
        else:
            assert self.course.newest is None or decided.content.number == self.course.newest.number + 1
            self.course.adopt(decided.content)
            self.committed = self.course.committed

    # As the torch thread.

    def work(self) -> None:
        """The next thing to do, and again after a while."""
        if self.world.processes.get(self.node) is not self:
            return
        self.world.at(self.world.random.uniform(0.02, self.training.pace_s), self.work)
        if self.is_stopped or self.machine.is_excluded:
            return
        iteration = len(self.history)
        if not self.course.has_state:
            self.arrive()
        elif any(view.way == "takeover" for view in self.course.waiting):
            self.take_up(iteration)
            assert self.course.running is not None
            if self.is_running and self.course.running.committed >= iteration:
                self.finish(self.course.figures)
        elif self.is_running:
            self.run(iteration)
        elif self.course.may_begin(iteration):
            self.course.begun, self.is_running = iteration, True
            self.take_up(iteration)

    def arrive(self) -> None:
        """Wait for a view, then for the state of a donor."""
        if self.course.running is None and self.course.waiting:
            self.course.take_up(self.course.waiting[0].first_iteration)
        if self.course.running is not None:
            handed = self.training.handed.get((self.course.running.number, self.node))
            if handed is not None:
                history, figures = handed
                self.history = list(history)
                self.course.complete(len(history) - 1, figures)
                self.committed = self.course.committed
                self.world.counts["came back"] += 1

    def take_up(self, iteration: int) -> None:
        """Go on in what is due; hand the state to those who have joined."""
        views = self.course.take_up(iteration)
        if views:
            self.world.counts[views[-1].way] += 1
            self.world.counts["passed over"] += len(views) - 1
            for joiner in views[-1].joined:
                if donor(views[-1], joiner) == self.node:
                    assert len(self.history) == views[-1].first_iteration
                    self.training.handed[views[-1].number, joiner] = list(self.history), self.course.figures

    def run(self, iteration: int) -> None:
        """Do this node's part; commit if all have done theirs in the same view."""
        view = self.course.running
        assert view is not None
        done = self.training.done[view.number, iteration]
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
        self.is_running = False


def succeed(view: View, iteration: int, lost: Collection[int]) -> Plan:
    """The plan of those who are left."""
    return plan_of(set(view.members) - set(lost))


class Training(Torture):
    """Nodes that train."""

    def __init__(self, seed: int, machine: type[Agreement] = Agreement) -> None:
        super().__init__(seed, machine)
        self.pace_s = self.random.choice([0.1, 0.4, 2.0])
        self.left_out = 0.0
        self.has_ended = False
        self.reports: list[Report] = []
        self.done: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
        """Nodes that have done their part of an iteration, by view and iteration."""
        self.handed: dict[tuple[int, int], tuple[list[int], Rows]] = {}
        """The state that a node gets in a view, by both."""

    @property
    def trainers(self) -> list[Trainer]:
        return [process for process in self.processes.values() if isinstance(process, Trainer)]

    def new_process(self, node: int, birth: int) -> Process:
        trainer = Trainer(self, node, birth)
        if birth == 0:
            view = View(0, 0, "start", "the run begins", plan_of(range(self.first)), -1)
            trainer.course, trainer.committed = Course(view, -1, -1), -1
        self.at(self.random.random(), trainer.work)
        return trainer

    def work(self) -> None:
        """All who are up to date have the same history."""
        newest = max(self.adopted, default=0)
        current = [t.history for t in self.trainers if t.view == newest and t.course.has_state]
        for history in current:
            for other in current:
                if any(here != there for here, there in zip(history, other, strict=False)):
                    raise ViolationError(f"an iteration was done in two views: {history}, {other}")

    def is_well(self) -> bool:
        self.work()
        if self.has_ended:
            return True
        running = [(t.course.running, t.course) for t in self.trainers]
        return super().is_well() and all(
            view is not None and not course.waiting and course.committed >= view.first_iteration + MORE
            for view, course in running
        )


def test_torture() -> None:
    counts: Counter[str] = Counter()
    for seed in range(150):
        training = Training(seed)
        training.run()
        counts += training.counts
    for what in ("takeover", "boundary", "passed over", "came back", "had to end well"):
        assert counts[what] > 20, what
