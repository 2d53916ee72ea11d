"""A run's metrics: one JSON line an iteration, and the summary that is left at the end."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from skippipe.schedule import Plan

Line = dict[str, Any]


class Metrics:
    """Collects a run's lines in its folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.jsonl"
        self.lines: list[Line] = []

    def add(self, line: Line) -> None:
        """Append one iteration's line."""
        self.lines.append(line)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def median(self, field: str) -> float:
        """Median of a field over the iterations."""
        return float(statistics.median(line[field] for line in self.lines))

    def summary(self, setting: str, nodes: int, plan: Plan) -> Line:
        """The run in one mapping; measured times are medians, in the schedule's seconds (design: summary.json)."""
        measured_step_s = self.median("step_s")
        return {
            "setting": setting,
            "nodes": nodes,
            "iterations": len(self.lines),
            "loss_first": self.lines[0]["loss"],
            "loss_last": self.lines[-1]["loss"],
            "measured_iteration_s": self.median("iteration_s"),
            "measured_step_s": measured_step_s,
            "expected_iteration_s": plan.expected_iteration_s,
            "expected_step_s": plan.expected_step_s,
            "measured_over_expected": measured_step_s / plan.expected_step_s,
            "tokens_per_second": self.median("tokens_per_second"),
            "bytes_sent": sum(line["bytes_sent"] for line in self.lines),
        }
