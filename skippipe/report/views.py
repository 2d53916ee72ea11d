"""A run's views, views.jsonl: who took part from when on, a line each time that this changes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skippipe.errors import UserError
from skippipe.report.records import append_missing, from_object
from skippipe.schedule import Plan

VIEWS = "views.jsonl"
START, TAKEOVER = "start", "takeover"
"""Ways of going on (survival/view.py)."""
FIRST_RESTORED = "stage 0 restored by"
"""In the reason of a redo: before the node that has the first stage from a checkpoint, since nobody else has it."""


@dataclass(frozen=True)
class RunView:
    """A line of views.jsonl."""

    number: int
    iteration: int
    """The first that is done in it, unless a later view comes in between."""
    members: tuple[int, ...]
    stages: tuple[tuple[int, ...], ...]
    paths: tuple[tuple[int, ...], ...]
    reason: str
    way: str
    expected_step_s: float
    detected_s: float | None = None
    """The run's time, in real seconds, at which somebody noticed."""
    resumed_s: float | None = None
    """The run's time at which tasks went on; None if the view was passed over: nothing was done in it."""

    @property
    def has_begun(self) -> bool:
        """Whether anything was done in it."""
        return self.way == START or self.resumed_s is not None

    @property
    def plan(self) -> Plan:
        """Stages and paths, without orders and times."""
        return Plan(self.stages, self.paths, {}, (0.0,) * len(self.stages), 0.0, self.expected_step_s)


def append_views(folder: Path, documents: Iterable[dict[str, Any]]) -> None:
    """Add the lines of views, but for those whose number is there: each launcher's has times of its own."""

    def missing(before: bytes) -> list[str]:
        there = {json.loads(line)["number"] for line in before.splitlines()}
        return [json.dumps(document) for document in documents if document["number"] not in there]

    append_missing(folder / VIEWS, missing, sys.maxsize)


def read_views(folder: Path) -> list[RunView]:
    """A run's views by number, the first one that it began with; UserError names what is wrong or missing."""
    path = folder / VIEWS
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read ({error}); give a run's folder") from None
    views = sorted((read_view(text, f"{path} line {place}") for place, text in enumerate(texts, 1)), key=by_number)
    for place, view in enumerate(views):
        if view.number != place:
            raise UserError(f"{path}: view {view.number} where {place} is due; give the folder of nodes that saw all")
        check(view, views[0], f"{path}: view {place}")
    if not views:
        raise UserError(f"{path} is empty; no node has begun")
    return views


def read_view(text: str, where: str) -> RunView:
    """The view of a line."""
    try:
        document = json.loads(text)
        if isinstance(document, dict):
            document = {name: value for name, value in document.items() if value is not None}
        return from_object(RunView, document)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} holds no view ({error})") from None


def by_number(view: RunView) -> int:
    """To sort by."""
    return view.number


def check(view: RunView, first: RunView, where: str) -> None:
    """UserError if a view's paths don't lead through its stages, or it has other work than the run's first one."""
    stage_of = view.plan.stage_of()
    if len(stage_of) != sum(map(len, view.stages)) or sorted(stage_of) != sorted(view.members):
        raise UserError(f"{where}: stages and members are not the same nodes, each once")
    if (len(view.paths), len(view.stages)) != (len(first.paths), len(first.stages)):
        raise UserError(f"{where} has other microbatches or stages than the first")
    for microbatch, path in enumerate(view.paths):
        stages = [stage_of.get(node) for node in path]
        if None in stages or stages[:1] != [0] or len(set(stages)) != len(stages):
            raise UserError(f"{where}: microbatch {microbatch} does not visit stage 0 and others once, by members")


def view_of(views: Sequence[RunView], iteration: int) -> RunView:
    """The view that an iteration was done in: the last one that was to begin with it or before.

    A takeover begins after the last iteration that anyone had committed, a boundary view with one that nobody had
    begun. So whatever was done in an earlier view lies before the first iteration of each later one.
    """
    return next(view for view in reversed(views) if view.iteration <= iteration)
