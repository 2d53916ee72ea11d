"""A run's timeline.jsonl: a line a task or sync, which each node adds for itself after each iteration."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from skippipe.errors import UserError
from skippipe.schedule.plan import Task
from skippipe.schedule.timeline import KIND_NAMES, SYNC, Span

TIMELINE = "timeline.jsonl"
FIELDS: dict[str, Any] = {"iteration": int, "node": int, "task": str, "start_s": (int, float), "end_s": (int, float)}


def append_spans(folder: Path, iteration: int, spans: Iterable[Span]) -> None:
    """Add a node's spans of an iteration, in the run's time over time_scale: one write, so lines don't mix."""
    lines = [
        dict(zip(FIELDS, (iteration, span.node, span.name, span.start_s, span.end_s), strict=True)) for span in spans
    ]
    with (folder / TIMELINE).open("ab", buffering=0) as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines).encode())


def read_spans(folder: Path) -> dict[int, list[Span]]:
    """A run's spans by iteration, in the order of the file; UserError names the line that is not one."""
    path = folder / TIMELINE
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read ({error}); give a run's folder") from None
    spans: dict[int, list[Span]] = {}
    for number, text in enumerate(texts, start=1):
        if text.strip():
            iteration, span = read_line(text, f"{path} line {number}")
            spans.setdefault(iteration, []).append(span)
    return spans


def read_line(text: str, where: str) -> tuple[int, Span]:
    """Iteration and span of one line: iteration and node whole numbers, a task or "sync", start_s and end_s finite."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"{where} is no JSON; the run may still be writing it") from None
    if not isinstance(line, dict) or any(not isinstance(line.get(name), kind) for name, kind in FIELDS.items()):
        raise UserError(f"{where} needs iteration, node, task, start_s and end_s")
    if not all(abs(line[name]) <= sys.float_info.max for name in ("start_s", "end_s")):
        raise UserError(f"{where} has a time that is not finite")
    kind, microbatch = SYNC, None
    if line["task"] != SYNC:
        task = Task.parse(line["task"], f"{where}: node {line['node']}")
        kind, microbatch = KIND_NAMES[task.kind], task.microbatch
    return line["iteration"], Span(line["node"], kind, microbatch, line["start_s"], line["end_s"])
