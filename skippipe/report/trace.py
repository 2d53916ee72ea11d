"""What every node does when, expected by a schedule or measured in a run, and its Chrome/Perfetto trace."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from skippipe.errors import UserError
from skippipe.schedule import Plan, Schedule
from skippipe.schedule.plan import Task
from skippipe.schedule.timeline import KIND_NAMES, LINK, SYNC, Span, Timeline

MEASURED_PROCESSES = 1000
"""Process ids of a trace from which on the stages are the measured ones."""


def measured_spans(folder: Path, schedule: Schedule, setting: str, iteration: int) -> Timeline:
    """One iteration of a run, from its timeline.jsonl, in seconds from its first forward.

    A link lasts from the sender's end for its emulated time, at most until the receiver starts on what it brought.
    Raises UserError for a file or an iteration that is not there, or a line that can't be read.
    """
    plan = schedule.plan(setting)
    lines = read_timeline(folder / "timeline.jsonl")
    chosen = [line for line in lines if line["iteration"] == iteration]
    if not chosen:
        known = sorted({line["iteration"] for line in lines})
        hint = f"it has {known[0]} to {known[-1]}" if known else "it is empty"
        raise UserError(f"{folder / 'timeline.jsonl'} has no iteration {iteration}; {hint}")
    begin = min(line["start_s"] for line in chosen)
    spans: list[Span] = []
    by_step: dict[tuple[int, int], Span] = {}
    for line in chosen:
        start_s, end_s, node, text = line["start_s"] - begin, line["end_s"] - begin, line["node"], line["task"]
        if text == SYNC:
            spans.append(Span(node, SYNC, None, start_s, end_s))
            continue
        task = Task.parse(text, f"{folder / 'timeline.jsonl'}: node {node}")
        if task.microbatch >= len(plan.paths) or node not in plan.paths[task.microbatch]:
            raise UserError(f"{folder}: node {node} ran {text}, which setting {setting} does not ask of it")
        span = Span(node, KIND_NAMES[task.kind], task.microbatch, start_s, end_s)
        spans.append(span)
        by_step[task.microbatch, plan.step_of(task, node)] = span
    for (m, step), span in by_step.items():
        following = by_step.get((m, step + 1))
        if following is not None:
            arrival = span.end_s + float(schedule.costs.hop_s[span.node, following.node])
            spans.append(Span(span.node, LINK, m, span.end_s, max(span.end_s, min(arrival, following.start_s))))
    return Timeline(tuple(spans))


def read_timeline(path: Path) -> list[dict[str, Any]]:
    """Lines of a timeline; UserError names the line that is not one."""
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read ({error}); give a run's folder") from None
    return [timeline_line(text, f"{path} line {number + 1}") for number, text in enumerate(texts) if text.strip()]


def timeline_line(text: str, where: str) -> dict[str, Any]:
    """One checked line: iteration and node whole numbers, task text, start_s and end_s finite."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"{where} is no JSON; the run may still be writing it") from None
    kinds: dict[str, Any] = {"iteration": int, "node": int, "task": str, "start_s": (int, float), "end_s": (int, float)}
    if not isinstance(line, dict) or any(not isinstance(line.get(key), kind) for key, kind in kinds.items()):
        raise UserError(f"{where} needs iteration, node, task, start_s and end_s")
    if not (math.isfinite(line["start_s"]) and math.isfinite(line["end_s"])):
        raise UserError(f"{where} has a time that is not finite")
    return line


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
