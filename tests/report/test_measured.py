"""What is shown of a run whose nodes died and came back: who took over what, and who was away from when to when."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest

from skippipe.cli.trace import chosen
from skippipe.errors import UserError
from skippipe.report.marks import takeovers
from skippipe.report.measured import Measured, measured_run
from skippipe.report.plots import draw_gantt
from skippipe.report.timeline import append_spans
from skippipe.report.trace import chrome_trace
from skippipe.report.views import append_views
from skippipe.schedule import Plan
from skippipe.schedule.timeline import LINK, plan_timeline
from skippipe.survival.succession import plan_of_the_living
from skippipe.survival.view import View, Way
from tests.small_schedule import small_schedule

SCHEDULE, SETTING = small_schedule(), "ca-partial"
FIRST = SCHEDULE.plan(SETTING)
SCALE, EPOCH, APART = 2.0, 1e6, 1.0
"""Of the run's time over the schedule's, when it began, and the seconds of the schedule between two iterations."""


def living(lost: Collection[int], plan: Plan = FIRST) -> Plan:
    return plan_of_the_living(plan, lost, SCHEDULE.costs, SCHEDULE.bandwidth_gib_s, SCHEDULE.pipeline.sync_bytes)


def at(iteration: int, offset_s: float) -> float:
    """A moment in the run's time, so many seconds of the schedule after an iteration began."""
    return SCALE * (EPOCH + APART * iteration + offset_s)


def write_run(folder: Path) -> Path:
    """In iteration 1 nodes 2 and then 5 are lost; node 2 is back for iteration 3, after a view that was passed over."""
    both = living({5}, living({2}))
    plans = [FIRST, both, both, living({5})]
    ways: list[tuple[Way, int, str, Plan, float | None, float | None]] = [
        ("start", 0, "the run begins", FIRST, None, None),
        ("takeover", 1, "lost: 2", living({2}), at(1, 0.2), at(1, 0.3)),
        ("takeover", 1, "lost: 5", both, at(1, 0.4), at(1, 0.5)),
        ("boundary", 3, "joined: 5", living({2}), None, None),
        ("boundary", 3, "joined: 2", living({5}), at(2, 0.7), at(3, 0.0)),
    ]
    append_views(
        folder,
        [
            View(number, first, way, reason, plan, first - 1, detected_s=detected_s, resumed_s=resumed_s).document()
            for number, (way, first, reason, plan, detected_s, resumed_s) in enumerate(ways)
        ],
    )
    for iteration, plan in enumerate(plans):
        begin_s = EPOCH + APART * iteration
        spans = [
            replace(span, start_s=begin_s + span.start_s, end_s=begin_s + span.end_s)
            for span in plan_timeline(plan, SCHEDULE.costs)
            if span.kind != LINK
        ]
        append_spans(folder, iteration, spans)
    (folder / "config.json").write_text(json.dumps({"emulation": {"time_scale": SCALE}}))
    return folder


def test_the_iteration_of_two_deaths(tmp_path: Path) -> None:
    shown = measured_run(write_run(tmp_path), SCHEDULE.costs, 1, 1)
    assert [change.text for change in shown.changes] == ["view 1: lost: 2", "view 2: lost: 5"]
    assert [change.lost for change in shown.changes] == [(2,), (5,)]
    assert [change.noticed_s for change in shown.changes] == pytest.approx([0.2, 0.4], abs=1e-6)
    assert [change.at_s for change in shown.changes] == pytest.approx([0.3, 0.5], abs=1e-6)
    assert [(node, pytest.approx(begin, abs=1e-6), end) for node, begin, end in shown.away] == [
        (2, 0.2, None),
        (5, 0.4, None),
    ]
    assert takeovers(shown) == {3: "+ 0, 5 of node 2", 4: "+ 2 of node 5"}
    assert {span.microbatch for span in shown.taken_over} == {0, 2, 5}
    # A forward and a backward of each: the origins' own tasks are where they were.
    assert len(shown.taken_over) == 6


def test_the_iterations_after_a_death_and_of_a_return(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    after = measured_run(folder, SCHEDULE.costs, 2, 2)
    assert (after.changes, after.absent) == ((), frozenset({2, 5}))
    assert after.away == [(2, None, None), (5, None, None)]
    assert takeovers(after) == {3: "+ 0, 5 of node 2", 4: "+ 2 of node 5"}
    back = measured_run(folder, SCHEDULE.costs, 3, 3)
    assert [(change.text, change.lost, change.joined) for change in back.changes] == [("view 4: joined: 2", (), (2,))]
    assert back.away == [(2, None, pytest.approx(0.0, abs=1e-6)), (5, None, None)]
    # That it was asked for in the iteration before is not shown.
    assert back.begin_s == 0.0
    assert not back.taken_over
    whole = measured_run(folder, SCHEDULE.costs, 0, 3)
    assert [change.text for change in whole.changes] == [
        *(f"view {n}: lost: {m}" for n, m in ((1, 2), (2, 5))),
        "view 4: joined: 2",
    ]
    assert len(whole.taken_over) == 12


def thin_out(folder: Path, every: int, kept: Collection[int]) -> Path:
    """Leave of a run's timeline what is written with timeline_every, the last of these iterations."""
    lines = (folder / "timeline.jsonl").read_text().splitlines(keepends=True)
    (folder / "timeline.jsonl").write_text("".join(line for line in lines if json.loads(line)["iteration"] in kept))
    document = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**document, "timeline_every": every}))
    return folder


def test_iterations_that_were_not_written_are_named_with_those_that_were(tmp_path: Path) -> None:
    folder = thin_out(write_run(tmp_path), 3, {0, 1, 3})
    assert [change.text for change in measured_run(folder, SCHEDULE.costs, 1, 1).changes] == [
        "view 1: lost: 2",
        "view 2: lost: 5",
    ]
    near = r"has no iteration 2: timeline_every is 3; the nearest that it has are 1 and 3"
    for first, last in ((2, 2), (0, 3)):
        with pytest.raises(UserError, match=near):
            measured_run(folder, SCHEDULE.costs, first, last)
    with pytest.raises(UserError, match=r"has no iteration 9: timeline_every is 3; the nearest that it has is 3$"):
        measured_run(folder, SCHEDULE.costs, 9, 9)


def test_the_iteration_that_is_shown_unasked_is_one_that_was_written(tmp_path: Path) -> None:
    folder = thin_out(write_run(tmp_path), 3, {0, 1, 3})
    assert chosen(folder, 4) == (1, 1)
    views = (folder / "views.jsonl").read_text().splitlines(keepends=True)
    (folder / "views.jsonl").write_text(views[0])
    # In the middle would be 0, 1, 2, 3 and 4.
    assert [chosen(folder, iterations)[0] for iterations in (1, 2, 5, 7, 8)] == [0, 0, 0, 3, 3]
    (folder / "views.jsonl").write_text(views[0].replace('"iteration": 0', '"iteration": 5'))
    assert [chosen(folder, iterations)[0] for iterations in (1, 2, 5)] == [5, 6, 6]
    (folder / "views.jsonl").write_text(views[0].replace('"iteration": 0', '"iteration": 4'))
    assert chosen(folder, 3) == (4, 4)


def test_tasks_of_another_view_are_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    append_spans(folder, 2, [span for span in plan_timeline(FIRST, SCHEDULE.costs) if span.node == 2][:1])
    with pytest.raises(UserError, match=r"node 2 ran F., which view 2 does not ask of it"):
        measured_run(folder, SCHEDULE.costs, 1, 2)


def test_the_first_iteration_of_a_loss_is_shown_if_none_is_asked_for(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    assert chosen(folder, 4) == (1, 1)
    # It is lost after the last iteration, if there is but one.
    assert chosen(folder, 1) == (0, 0)


@pytest.mark.parametrize(("first", "last"), [(1, 1), (2, 2), (3, 3), (0, 3)])
def test_pictures_show_it(tmp_path: Path, first: int, last: int) -> None:
    shown = measured_run(write_run(tmp_path), SCHEDULE.costs, first, last)
    draw_gantt(SCHEDULE, SETTING, tmp_path / "gantt.png", shown)
    events = chrome_trace(SCHEDULE, SETTING, shown)["traceEvents"]
    assert len([event for event in events if event.get("cat") == "view"]) == len(shown.changes)
    assert len([event for event in events if event["name"] == "away"]) == len(shown.away)
    assert min(event["dur"] for event in events if event["ph"] == "X") >= 0


def test_nothing_happened_in_an_undisturbed_schedule() -> None:
    shown = Measured(SCHEDULE.simulate(SETTING), "expected", 1)
    assert (shown.away, shown.begin_s, takeovers(shown)) == ([], 0.0, {})
