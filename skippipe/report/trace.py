"""What every node does when, expected by a schedule or measured in a run, as a Chrome/Perfetto trace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from skippipe.report.measured import Measured
from skippipe.schedule import Plan, Schedule
from skippipe.schedule.timeline import LINK, Span

MEASURED_PROCESSES = 1000
"""Process ids of a trace from which on the stages are the measured ones."""


def chrome_trace(schedule: Schedule, setting: str, measured: Measured | None = None) -> dict[str, Any]:
    """Trace for chrome://tracing or ui.perfetto.dev: a process a stage, a thread a node, links as async events.

    Of a run it also has the changes of its views, marks where a node was lost or joined, and in the names of tasks that
    heirs did whose tasks they were. A node's row is that of the stage which it has in the setting.
    """
    plan = schedule.plan(setting)
    events = trace_events(schedule.simulate(setting), schedule, plan, 0, "", {})
    if measured is not None:
        events += trace_events(measured.timeline, schedule, plan, MEASURED_PROCESSES, "measured ", measured.taken_over)
        events += change_events(measured, plan)
    return {"displayTimeUnit": "ms", "traceEvents": events}


def trace_events(
    spans: Iterable[Span],
    schedule: Schedule,
    plan: Plan,
    first_process: int,
    prefix: str,
    taken_over: Mapping[Span, int],
) -> list[dict[str, Any]]:
    """Trace events of spans, of which heirs took some over from others; stage s is process first_process + s."""
    stage_of = plan.stage_of()
    events: list[dict[str, Any]] = []
    for stage, nodes in enumerate(plan.stages):
        process = first_process + stage
        events.append({"ph": "M", "name": "process_name", "pid": process, "args": {"name": f"{prefix}stage {stage}"}})
        for node in nodes:
            label = {"name": f"node {node} {schedule.locations[node]}"}
            events.append({"ph": "M", "name": "thread_name", "pid": process, "tid": node, "args": label})
    for number, span in enumerate(spans):
        arguments = {} if span.microbatch is None else {"origin": plan.paths[span.microbatch][0]}
        name = f"{span.name} for node {taken_over[span]}" if span in taken_over else span.name
        event = {"name": name, "cat": span.kind, "pid": first_process + stage_of[span.node], "tid": span.node}
        begin, end = 1e6 * span.start_s, 1e6 * span.end_s
        if span.kind == LINK:
            key = {"id": f"{prefix}{number}"}
            events.append({**event, **key, "ph": "b", "ts": begin, "args": arguments})
            events.append({**event, **key, "ph": "e", "ts": end})
        else:
            events.append({**event, "ph": "X", "ts": begin, "dur": end - begin, "args": arguments})
    return events


def change_events(measured: Measured, plan: Plan) -> list[dict[str, Any]]:
    """A line through all rows for each view, a mark on the row of each node that is lost or joins, a bar while away."""
    stage_of, end_s = plan.stage_of(), measured.end_s
    events: list[dict[str, Any]] = []

    def add(node: int, name: str, kind: str, at_s: float, **more: Any) -> None:
        place = {"pid": MEASURED_PROCESSES + stage_of[node], "tid": node}
        events.append({"name": name, "cat": kind, "ts": 1e6 * at_s, **place, **more})

    for change in measured.changes:
        add(plan.stages[0][0], change.text, "view", change.at_s, ph="i", s="g")
        for node in change.lost:
            add(node, f"node {node} lost: noticed here", "lost", change.noticed_s, ph="i", s="t")
        for node in change.joined:
            add(node, f"node {node} joins", "joined", change.at_s, ph="i", s="t")
    for node, from_s, to_s in measured.away:
        begin_s = measured.begin_s if from_s is None else from_s
        add(node, "away", "away", begin_s, ph="X", dur=1e6 * ((end_s if to_s is None else to_s) - begin_s))
    return events
