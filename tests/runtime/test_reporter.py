"""What is written and told of views and iterations, whoever speaks for a machine and whenever it dies."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from skippipe.config import RunConfig
from skippipe.report.metrics import IterationMetrics
from skippipe.report.timeline import read_spans
from skippipe.report.views import read_views, view_of
from skippipe.runtime.emulation import RunClock
from skippipe.runtime.events import Event, IterationLoss, ViewBegun
from skippipe.runtime.executor import IterationRecord
from skippipe.runtime.figures import Figures
from skippipe.runtime.job import Job
from skippipe.runtime.reporter import Reporter
from skippipe.schedule.timeline import FORWARD, SYNC, Span
from skippipe.survival.succession import plan_of_the_living
from skippipe.survival.view import View
from skippipe.transport.clocks import Clock
from tests.small_schedule import small_schedule

CONFIG = RunConfig()
SCHEDULE = small_schedule()
FIRST = SCHEDULE.plan("ca-partial")
START = View(0, 0, "start", "the run begins", FIRST, -1)


class Machine:
    """A launcher's side: where its nodes' events go."""

    def __init__(self, folder: Path, node: int, events: list[Event]) -> None:
        self.folder, self.node = folder, node
        self.report = events.append


def reporter_of(folder: Path, node: int, events: list[Event], config: RunConfig = CONFIG) -> Reporter:
    machine: Any = Machine(folder, node, events)
    prepared: Any = None
    job, clock = Job(machine, "ca-partial", SCHEDULE, config, prepared, None), RunClock(Clock(), lambda: 0.0)
    return Reporter(job, clock, lambda node: True)


def takeover(number: int, iteration: int, lost: Collection[int], before: View) -> View:
    moved = SCHEDULE.pipeline.sync_bytes
    plan = plan_of_the_living(before.plan, lost, SCHEDULE.costs, SCHEDULE.bandwidth_gib_s, moved)
    return View(number, iteration, "takeover", f"lost: {lost}", plan, iteration - 1, lost=tuple(lost))


def figures(step_end: float) -> Figures:
    return Figures(1.0, 6.0, 3.0, 0.0, 1.0, step_end, 100.0, 0.0, 0.0, 1.0)


def test_a_boundary_view_that_is_passed_over_is_written_and_not_told(tmp_path: Path) -> None:
    events: list[Event] = []
    reporter = reporter_of(tmp_path, 0, events)
    reporter.begin(START)
    first = takeover(1, 1, (2,), START)
    reporter.views([first], START, 1.0)
    joined = View(2, 4, "boundary", "joined: 2", FIRST, -1, joined=(2,), donors={2: 0})
    second = takeover(3, 3, (5,), first)
    reporter.views([joined, second], first, 1.0)
    views = read_views(tmp_path)
    assert [(view.number, view.iteration, view.has_begun) for view in views] == [
        (0, 0, True),
        (1, 1, True),
        (2, 4, False),
        (3, 3, True),
    ]
    assert [view_of(views, iteration).number for iteration in range(6)] == [0, 1, 1, 3, 3, 3]
    told = [event for event in events if isinstance(event, ViewBegun)]
    assert [(event.number, event.lost, event.joined, event.taken_over) for event in told] == [
        (1, (2,), (), 2),
        (3, (5,), (), 1),
    ]


def test_losses_of_a_view_that_is_passed_over_are_told(tmp_path: Path) -> None:
    events: list[Event] = []
    reporter = reporter_of(tmp_path, 0, events)
    reporter.begin(START)
    first = takeover(1, 1, (2,), START)
    reporter.views([first, takeover(2, 1, (5,), first)], START, 1.0)
    assert [view.has_begun for view in read_views(tmp_path)] == [True, False, True]
    told = [event for event in events if isinstance(event, ViewBegun)]
    assert [(event.lost, event.heirs, event.taken_over) for event in told] == [((2,), (3,), 2), ((5,), (4,), 1)]


def test_a_joiner_that_stays_is_told_though_its_view_is_passed_over(tmp_path: Path) -> None:
    events: list[Event] = []
    reporter = reporter_of(tmp_path, 0, events)
    first = takeover(1, 1, (2,), START)
    reporter.begin(START)
    reporter.views([first], START, 1.0)
    back = View(2, 3, "boundary", "joined: 2", FIRST, -1, joined=(2,), donors={2: 0})
    reporter.views([back, takeover(3, 3, (5,), back)], first, 1.0)
    told = [event for event in events if isinstance(event, ViewBegun)]
    assert [(event.lost, event.joined) for event in told] == [((2,), ()), ((), (2,)), ((5,), ())]


def test_who_joins_with_a_view_that_another_replaces_is_told_once(tmp_path: Path) -> None:
    events: list[Event] = []
    reporter = reporter_of(tmp_path, 0, events)
    first = takeover(1, 1, (2, 5), START)
    reporter.begin(START)
    reporter.views([first], START, 1.0)
    one = View(2, 3, "boundary", "joined: 2", takeover(2, 3, (5,), START).plan, -1, joined=(2,), donors={2: 3})
    both = View(3, 3, "boundary", "joined: 2, 5", FIRST, -1, joined=(2, 5), donors={2: 3, 5: 4})
    reporter.views([one, both], first, 1.0)
    told = [event for event in events if isinstance(event, ViewBegun)]
    assert [(event.lost, event.joined) for event in told] == [((2, 5), ()), ((), (2, 5))]


def test_the_timeline_is_every_so_manyth_iteration_and_those_that_a_view_begins_with(tmp_path: Path) -> None:
    reporter = reporter_of(tmp_path, 0, [], RunConfig(timeline_every=10))
    lost = takeover(1, 13, (2,), START)
    for view, iterations in ((replace(START, first_iteration=4), range(4, 13)), (lost, range(13, 25))):
        for iteration in iterations:
            spans = [Span(0, FORWARD, 0, float(iteration), iteration + 0.5)]
            reporter.timeline(view, iteration, IterationRecord(spans), Span(0, SYNC, None, 0.0, 1.0))
    assert {iteration: len(spans) for iteration, spans in read_spans(tmp_path).items()} == {4: 2, 10: 2, 13: 2, 20: 2}


def test_who_speaks_next_writes_and_tells_what_the_one_before_did_not(tmp_path: Path) -> None:
    events: list[Event] = []
    reporter = reporter_of(tmp_path, 1, events)
    reporter.begin(START)
    first = takeover(1, 1, (2,), START)
    reporter.iteration(START, 0, {node: figures(0.0) for node in range(6)}, None, None)
    reporter.views([first], START, 1.0)
    reporter.iteration(first, 1, {node: figures(1.0) for node in first.members}, None, None)
    assert events == []
    # Node 0 has died before it wrote or told anything.
    second = takeover(2, 2, (0,), first)
    reporter.views([second], first, 1.0)
    reporter.iteration(second, 2, {node: figures(2.0) for node in second.members}, None, None)
    assert [view.number for view in read_views(tmp_path)] == [0, 1, 2]
    assert [event.iteration for event in events if isinstance(event, IterationMetrics)] == [0, 1]
    assert [event.iteration for event in events if isinstance(event, IterationLoss)] == [2]
