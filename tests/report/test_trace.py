"""Traces and pictures of schedules and runs."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest

from skippipe.cli import trace as command
from skippipe.config import CONFIGS
from skippipe.errors import UserError
from skippipe.report.measured import Measured, measured_run
from skippipe.report.metrics import IterationMetrics, RunSummary, SurvivalSummary, write_summary
from skippipe.report.timeline import append_spans
from skippipe.report.trace import chrome_trace
from skippipe.report.views import append_views
from skippipe.schedule import Schedule
from skippipe.schedule.timeline import LINK
from skippipe.survival.view import View

ORIGINAL = CONFIGS / "schedules/original-20-nodes.json"
SETTING = "ca-partial"


@pytest.fixture(scope="module")
def schedule() -> Schedule:
    return Schedule.load(ORIGINAL)


def write_run(folder: Path, schedule: Schedule, slower: float = 1.1) -> None:
    """A run's folder whose two iterations took `slower` times the expected, on a clock that began long ago."""
    for iteration in range(2):
        begin = 1e9 + 100 * iteration
        spans = [
            replace(span, start_s=begin + slower * span.start_s, end_s=begin + slower * span.end_s)
            for span in schedule.simulate(SETTING)
            if span.kind != LINK
        ]
        append_spans(folder, iteration, spans)
    append_views(folder, [View(0, 0, "start", "the run begins", schedule.plan(SETTING), -1).document()])
    figures = IterationMetrics(0, 7.0, 1.0, 30.0, 50.0, 100, 2.0, 1000)
    lines = [figures, replace(figures, iteration=1)]
    write_summary(folder, RunSummary.of(SETTING, schedule.nodes, schedule.plan(SETTING), lines, SurvivalSummary()))
    write_config(folder)


def write_config(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"schedule": str(ORIGINAL)}))


def test_measured_spans_are_the_runs_own(schedule, tmp_path):
    write_run(tmp_path, schedule)
    measured = measured_run(tmp_path, schedule.costs, 1, 1)
    expected = schedule.simulate(SETTING)
    assert len(measured.timeline) == len(expected)
    assert measured.timeline.iteration_s == pytest.approx(1.1 * expected.iteration_s, abs=1e-6)
    assert measured.timeline.step_s == pytest.approx(1.1 * expected.step_s, abs=1e-6)
    assert (measured.changes, measured.absent, measured.taken_over, measured.away) == ((), frozenset(), {}, [])
    both = measured_run(tmp_path, schedule.costs, 0, 1)
    assert len(both.timeline) == 2 * len(expected)
    assert both.timeline.step_s == pytest.approx(100 + 1.1 * expected.step_s, abs=1e-6)


def test_chrome_trace_names_every_node_and_closes_every_link(schedule):
    events = chrome_trace(schedule, SETTING, Measured(schedule.simulate(SETTING), "measured (0)", 1))["traceEvents"]
    names = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert names == {f"node {node} {place}" for node, place in enumerate(schedule.locations)}
    begun = [event["id"] for event in events if event["ph"] == "b"]
    assert sorted(begun) == sorted(event["id"] for event in events if event["ph"] == "e")
    assert len(set(begun)) == len(begun) == 2 * 30 * 8
    assert {event["cat"] for event in events if event["ph"] == "X"} == {"forward", "loss", "backward", "sync"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 is no JSON"),
        ("[]", "needs iteration"),
        ('{"iteration": 0, "node": 0, "task": "F0", "start_s": NaN, "end_s": 1}', "not finite"),
        ('{"iteration": 0, "node": 0, "task": "Q0", "start_s": 0, "end_s": 1}', "no task"),
        ('{"iteration": 0, "node": 1, "task": "F0", "start_s": 0, "end_s": 1}', "does not ask"),
        ('{"iteration": 7, "node": 0, "task": "F0", "start_s": 0, "end_s": 1}', "no iteration 0; it has 7"),
    ],
)
def test_a_bad_timeline_is_refused(schedule, tmp_path, line, message):
    write_config(tmp_path)
    append_views(tmp_path, [View(0, 0, "start", "the run begins", schedule.plan(SETTING), -1).document()])
    (tmp_path / "timeline.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=message):
        measured_run(tmp_path, schedule.costs, 0, 0)


def call(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(list(arguments)))


def test_command_writes_trace_and_pictures_of_a_run(schedule, tmp_path):
    write_run(tmp_path, schedule)
    trace, chart, paths = (tmp_path / name for name in ("trace.json", "gantt.png", "paths.png"))
    assert call(str(tmp_path), "--out", str(trace), "--plot", str(chart), "--paths", str(paths)) == 0
    assert json.loads(trace.read_text())["traceEvents"]
    assert chart.read_bytes()[:4] == paths.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("iteration", "message"),
    [("2", "no iteration 2; it has 0 to 1"), ("0-2", "no iteration 2"), ("1-0", "not be after"), ("a", "a number or")],
)
def test_command_refuses_iterations_that_there_are_not(schedule, tmp_path, iteration, message):
    write_run(tmp_path, schedule)
    with pytest.raises(UserError, match=message):
        call(str(tmp_path), "--out", str(tmp_path / "trace.json"), "--iteration", iteration)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([str(ORIGINAL)], "nothing to write"),
        ([str(ORIGINAL), "--out", "x", "--setting", "none"], "no setting 'none'"),
        ([str(ORIGINAL), "--out", "x", "--iteration", "1"], "--iteration is for runs"),
        ([str(ORIGINAL), "--out", "x", "--samples", "0"], "--samples"),
        (["/nowhere", "--out", "x"], "can't be read"),
    ],
)
def test_command_refuses_mistakes(arguments, message):
    with pytest.raises(UserError, match=message):
        call(*arguments)
