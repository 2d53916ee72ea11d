"""What every node does when, expected by a schedule or measured in a run, and its Chrome/Perfetto trace."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from skippipe.errors import UserError
from skippipe.report.timeline import TIMELINE, read_spans
from skippipe.schedule import Plan, Schedule
from skippipe.schedule.plan import Task
from skippipe.schedule.timeline import KIND_NAMES, LINK, Span, Timeline

KINDS = {name: kind for kind, name in KIND_NAMES.items()}
MEASURED_PROCESSES = 1000
"""Process ids of a trace from which on the stages are the measured ones."""


def measured_spans(folder: Path, schedule: Schedule, setting: str, iteration: int) -> Timeline:
    """One iteration of a run, from its timeline.jsonl, in seconds from its first forward.

    A link lasts from the sender's end for its emulated time, at most until the receiver starts on what it brought.
    Raises UserError for a file or an iteration that is not there, or a line that can't be read.
    """
    plan = schedule.plan(setting)
    by_iteration = read_spans(folder)
    if iteration not in by_iteration:
        hint = f"it has {min(by_iteration)} to {max(by_iteration)}" if by_iteration else "it is empty"
        raise UserError(f"{folder / TIMELINE} has no iteration {iteration}; {hint}")
    begin = min(span.start_s for span in by_iteration[iteration])
    spans = [replace(span, start_s=span.start_s - begin, end_s=span.end_s - begin) for span in by_iteration[iteration]]
    by_step: dict[tuple[int, int], Span] = {}
    for span in spans:
        m, node = span.microbatch, span.node
        if m is None:
            continue
        if m >= len(plan.paths) or node not in plan.paths[m]:
            raise UserError(f"{folder}: node {node} ran {span.name}, which setting {setting} does not ask of it")
        by_step[m, plan.step_of(Task(KINDS[span.kind], m), node)] = span
    for (m, step), span in by_step.items():
        following = by_step.get((m, step + 1))
        if following is not None:
            arrival = span.end_s + float(schedule.costs.hop_s[span.node, following.node])
            spans.append(Span(span.node, LINK, m, span.end_s, max(span.end_s, min(arrival, following.start_s))))
    return Timeline(tuple(spans))


def chrome_trace(schedule: Schedule, setting: str, measured: Iterable[Span] | None = None) -> dict[str, Any]:
    """Trace for chrome://tracing or ui.perfetto.dev: a process a stage, a thread a node, links as async events."""
    plan = schedule.plan(setting)
    events = trace_events(schedule.simulate(setting), schedule, plan, 0, "")
    if measured is not None:
        events += trace_events(measured, schedule, plan, MEASURED_PROCESSES, "measured ")
    return {"displayTimeUnit": "ms", "traceEvents": events}


def trace_events(
    spans: Iterable[Span], schedule: Schedule, plan: Plan, first_process: int, prefix: str
) -> list[dict[str, Any]]:
    """Trace events of spans; stage s is process first_process + s."""
    stage_of = plan.stage_of()
    events: list[dict[str, Any]] = []
    for stage, nodes in enumerate(plan.stages):
        process = first_process + stage
        events.append({"ph": "M", "name": "process_name", "pid": process, "args": {"name": f"{prefix}stage {stage}"}})
        for node in nodes:
            name = {"name": f"node {node} {schedule.locations[node]}"}
            events.append({"ph": "M", "name": "thread_name", "pid": process, "tid": node, "args": name})
    for number, span in enumerate(spans):
        arguments = {} if span.microbatch is None else {"origin": plan.paths[span.microbatch][0]}
        event = {"name": span.name, "cat": span.kind, "pid": first_process + stage_of[span.node], "tid": span.node}
        begin, end = 1e6 * span.start_s, 1e6 * span.end_s
        if span.kind == LINK:
            key = {"id": f"{prefix}{number}"}
            events.append({**event, **key, "ph": "b", "ts": begin, "args": arguments})
            events.append({**event, **key, "ph": "e", "ts": end})
        else:
            events.append({**event, "ph": "X", "ts": begin, "dur": end - begin, "args": arguments})
    return events
