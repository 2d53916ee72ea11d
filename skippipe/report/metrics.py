"""A run's figures: metrics.jsonl, a line an iteration (or a batch of an evaluation), and summary.json at the end."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from skippipe.errors import UserError
from skippipe.report.records import append_missing, from_object, read_json, to_object
from skippipe.schedule import Plan

LOOKED_BACK_BYTES = 1 << 16
METRICS, SUMMARY = "metrics.jsonl", "summary.json"


@dataclass(frozen=True)
class IterationMetrics:
    """What one iteration took and reached; times are divided by the run's time_scale."""

    iteration: int
    loss: float
    """Mean over all microbatches, in nats a token."""
    gradient_norm: float
    iteration_s: float
    """First forward to last backward."""
    step_s: float
    """First forward to the end of the last node's optimizer step."""
    tokens: int
    tokens_per_second: float
    """In real time."""
    bytes_sent: int
    """Message bytes of all nodes."""
    validation_perplexity: float | None = None
    dropped: str | None = None
    """Where the numbers began that were not finite, if the iteration was dropped for them: no weight was changed."""


@dataclass(frozen=True)
class BatchMetrics:
    """One batch of an evaluation over live nodes."""

    batch: int
    loss: float
    """Nats a token."""
    tokens: int
    visited: tuple[int, ...]
    """Stages that still had a node."""


@dataclass
class SurvivalSummary:
    """What became of a run's nodes; seconds are the schedule's."""

    views: int = 1
    nodes_lost: int = 0
    nodes_joined: int = 0
    microbatches_taken_over: int = 0
    iterations_redone: int = 0
    seconds_lost: float = 0.0


@dataclass(frozen=True)
class RunSummary:
    """A run in one mapping; measured times are medians, in the schedule's seconds."""

    setting: str
    nodes: int
    iterations: int
    loss_first: float
    loss_last: float
    measured_iteration_s: float
    measured_step_s: float
    expected_iteration_s: float
    expected_step_s: float
    measured_over_expected: float
    """Of steps."""
    tokens_per_second: float
    bytes_sent: int
    dropped_iterations: int
    """Those without a step, because a number was not finite."""
    views: int
    """That the run had, the first one included."""
    nodes_lost: int
    """Members that the others went on without, each time that they did."""
    nodes_joined: int
    """Those that came back, each time that they did."""
    microbatches_taken_over: int
    """By heirs of lost nodes, of all views together."""
    iterations_redone: int
    """Each time that one was dropped and begun again, because nodes were lost."""
    seconds_lost: float
    """By which the steps of iterations in which nodes were lost took longer than expected."""

    @classmethod
    def of(
        cls, setting: str, nodes: int, plan: Plan, lines: Sequence[IterationMetrics], survival: SurvivalSummary
    ) -> Self:
        """Sum up a run of one iteration or more; losses are those of iterations that were not dropped, if there are."""
        kept = [line for line in lines if line.dropped is None] or lines
        measured_step_s = statistics.median(line.step_s for line in lines)
        return cls(
            setting=setting,
            nodes=nodes,
            iterations=len(lines),
            loss_first=kept[0].loss,
            loss_last=kept[-1].loss,
            measured_iteration_s=statistics.median(line.iteration_s for line in lines),
            measured_step_s=measured_step_s,
            expected_iteration_s=plan.expected_iteration_s,
            expected_step_s=plan.expected_step_s,
            measured_over_expected=measured_step_s / plan.expected_step_s,
            tokens_per_second=statistics.median(line.tokens_per_second for line in lines),
            bytes_sent=sum(line.bytes_sent for line in lines),
            dropped_iterations=sum(line.dropped is not None for line in lines),
            views=survival.views,
            nodes_lost=survival.nodes_lost,
            nodes_joined=survival.nodes_joined,
            microbatches_taken_over=survival.microbatches_taken_over,
            iterations_redone=survival.iterations_redone,
            seconds_lost=survival.seconds_lost,
        )


def append_metrics(folder: Path, line: IterationMetrics | BatchMetrics) -> None:
    """Add a line to a run's metrics, once: launchers that share the folder all find the same figures."""
    added = json.dumps(to_object(line))
    append_missing(folder / METRICS, lambda before: [] if added.encode() in before else [added], LOOKED_BACK_BYTES)


def read_metrics(folder: Path) -> list[IterationMetrics]:
    """All iterations of a run so far; UserError names the line that is not one."""
    path = folder / METRICS
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read ({error}); give a run's folder") from None
    lines = []
    for number, text in enumerate(texts, start=1):
        try:
            lines.append(from_object(IterationMetrics, json.loads(text)))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} line {number} holds no iteration's figures ({error})") from None
    return lines


def write_summary(folder: Path, summary: RunSummary) -> None:
    """Leave a run's summary."""
    (folder / SUMMARY).write_text(json.dumps(to_object(summary), indent=1) + "\n", encoding="utf-8")


def read_summary(folder: Path) -> RunSummary:
    """A run's summary; UserError if there is none, or another file has its name."""
    path = folder / SUMMARY
    document = read_json(path)
    try:
        return from_object(RunSummary, document)
    except ValueError as error:
        raise UserError(f"{path}: is not a run's ({error})") from None
