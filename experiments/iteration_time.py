"""Iteration time: the paper's setups by its own method and by ours, over seeds; the shipped schedule measured."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
from searching import add_budget, budget_of, searched
from setups import SETUPS, Setup

from skippipe.schedule import Plan, Schedule
from skippipe.schedule.simulate import iteration_seconds, simulate_first_come_first_served

SETTINGS = ("baseline", "random", "non-ca-partial", "ca-partial")
PARTIAL = ("non-ca-partial", "ca-partial")
ORIGINAL = Path("configs/schedules/original-20-nodes.json")


@dataclass(frozen=True)
class Row:
    """A setup's schedules, one a seed: by the paper's method (its four settings), and by ours (partial and joint)."""

    setup: Setup
    paper: list[Schedule]
    ours: list[Schedule]

    def plans(self, setting: str, by_paper: bool) -> list[Plan]:
        """The plans of a setting over the seeds."""
        return [schedule.plan(setting) for schedule in (self.paper if by_paper else self.ours)]

    def iteration_s(self, setting: str, by_paper: bool) -> list[float]:
        """Expected iterations over the seeds."""
        return [plan.expected_iteration_s for plan in self.plans(setting, by_paper)]

    def step_s(self, setting: str, by_paper: bool) -> list[float]:
        """Expected steps over the seeds."""
        return [plan.expected_step_s for plan in self.plans(setting, by_paper)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this experiment takes besides the scale."""
    add_budget(parser)
    parser.add_argument("--seeds", type=int, help="searches of each setup and method (default: 3 quick, 5 full)")
    parser.add_argument("--setups", type=int, default=len(SETUPS), help="only the first setups")
    parser.add_argument("--no-run", action="store_true", help="leave the measurement with run.sh out")


def experiment() -> None:
    """Search every setup, measure the shipped schedule, write the results."""
    arguments = common.parse_arguments(__doc__, add_arguments)
    scale = "quick" if arguments.quick else "full"
    budget, seeds = budget_of(arguments), arguments.seeds or (3 if arguments.quick else 5)
    results = common.Results(f"iteration-time-{scale}", f"Iteration time, {scale} scale", arguments.results)
    measured = [] if arguments.no_run else [measure(setting, scale) for setting in SETTINGS]
    rows = [search_setup(setup, budget, seeds) for setup in SETUPS[: arguments.setups]]
    report_simulated(results, rows, budget, seeds)
    report_collisions(results, rows)
    report_steps(results, rows)
    results.figure(plot(rows), results.name, "Iteration time of every setup: the paper's method, ours, and the paper")
    report_measured(results, measured)
    results.write()


def search_setup(setup: Setup, budget: str, seeds: int) -> Row:
    """Both methods' schedules of a setup, for every seed."""

    def by(method: str, settings: str) -> list[Schedule]:
        flags = (*setup.flags, "--time-budget-s", budget, "--method", method, "--settings", settings)
        return [searched(*flags, "--seed", str(seed)) for seed in range(seeds)]

    return Row(setup, by("paper", ",".join(SETTINGS)), by("ours", "non-ca-partial,ca-partial,joint"))


def spread(values: list[float]) -> str:
    """Median, and the least and the largest of several."""
    middle = f"{statistics.median(values):.1f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.1f} to {max(values):.1f})"


def report_simulated(results: common.Results, rows: list[Row], budget: str, seeds: int) -> None:
    """Iteration times of the paper's method beside the paper's, and of ours."""
    results.text(
        f"## Simulated\n\nSeconds of one iteration, from the first forward to the last backward: median over {seeds} "
        f"seeds, in brackets the least and the largest. Every number is of a search of its own, at most {budget} s for "
        "all settings of a method (`create_schedule.py --method paper` and `--method ours` with the setup's file). "
        "*Paper's method*: stages by GCMA's score, the same for all four settings; one random draw; A* and "
        "conflict-based search alone. *Ours*: stages and paths annealed on the simulation."
    )
    results.table(
        ["setup", *(common.LABELS[name] for name in SETTINGS), "without TC2, ours", "SkipPipe, ours"],
        [
            [row.setup.label]
            + [spread(row.iteration_s(name, True)) for name in SETTINGS]
            + [spread(row.iteration_s(name, False)) for name in PARTIAL]
            for row in rows
        ],
    )
    results.text(
        "Saved by SkipPipe against DT-FM*, and the paper's numbers (read off its figures, +-0.3 s) with our median of "
        "its method over them:"
    )
    results.table(
        ["setup", "saved, paper's method", "saved, ours", "saved in the paper", *(common.LABELS[n] for n in SETTINGS)],
        [saved_row(row) for row in rows],
    )
    results.text(
        "75% skip is not there: CC3 lets a path skip at most 3 stages in a row, so that K visits reach 4K - 3 stages "
        "at most and every path skips less than 75%."
    )


def saved_row(row: Row) -> list[Any]:
    """What SkipPipe saves, and how far our medians are from the paper's numbers."""
    middle = {name: statistics.median(row.iteration_s(name, True)) for name in SETTINGS}
    own = statistics.median(row.iteration_s("ca-partial", False))
    theirs = row.setup.paper
    in_paper = f"{1 - theirs[3] / theirs[0]:.0%}" if theirs[0] and theirs[3] else None
    beside = [
        f"{value:g} ({middle[name] / value - 1:+.0%})" if value else None
        for name, value in zip(SETTINGS, theirs, strict=True)
    ]
    saved = [f"{1 - seconds / middle['baseline']:.0%}" for seconds in (middle["ca-partial"], own)]
    return [row.setup.label, *saved, in_paper, *beside]


def report_collisions(results: common.Results, rows: list[Row]) -> None:
    """What collisions cost: the iteration over that of the slowest origin if it had all nodes to itself."""
    results.text(
        "How much can TC2 give? Below, the iteration of a plan over that of its slowest origin simulated alone, "
        "without the other origins' microbatches: what is lost to waiting for others, and so the most that "
        "avoiding collisions could save on these paths (paper's method, median over the seeds)."
    )
    results.table(
        ["setup", *(f"lost to others, {common.LABELS[name]}" for name in PARTIAL), "TC2 saves"],
        [collision_row(row) for row in rows],
    )


def collision_row(row: Row) -> list[Any]:
    """What a setup's plans of the paper's method lose to collisions, and what avoiding them saved."""
    lost = [statistics.median(lost_to_others(schedule, name) for schedule in row.paper) for name in PARTIAL]
    blind, aware = (statistics.median(row.iteration_s(name, True)) for name in PARTIAL)
    return [row.setup.label, *(f"{value:.1%}" for value in lost), f"{1 - aware / blind:.1%}"]


def lost_to_others(schedule: Schedule, setting: str) -> float:
    """Part of the slowest lone origin's iteration that a plan takes longer, as its origins share nodes."""
    plan, costs, memory = schedule.plan(setting), schedule.costs, schedule.pipeline.memory
    paths = plan.paths_array
    alone = []
    for origin in plan.sends:
        own = paths[paths[:, 0] == origin]
        alone.append(iteration_seconds(own, costs, simulate_first_come_first_served(own, costs, memory)))
    return max(0.0, plan.expected_iteration_s / max(alone) - 1)


def report_steps(results: common.Results, rows: list[Row]) -> None:
    """Step times, with the data-parallel sync."""
    results.text(
        "The same with the data-parallel sync (expected step, median over the seeds). GCMA's score counts the sync; "
        "our annealed stages go for the iteration and may let the sync grow (`sync_slack`), the joint search goes "
        "for the step. Saved: against the full pipeline's step."
    )
    columns = [("baseline", True), ("random", True), ("ca-partial", True), ("ca-partial", False), ("joint", False)]
    results.table(
        [
            "setup",
            "DT-FM*",
            "DT-FM-skip",
            "SkipPipe, paper's method",
            "SkipPipe, ours",
            "joint, ours",
            "saved, paper's method",
            "saved by joint",
        ],
        [step_row(row, columns) for row in rows],
    )


def step_row(row: Row, columns: list[tuple[str, bool]]) -> list[Any]:
    """One setup's step times, and what the third and the last save against the first."""
    steps = [statistics.median(row.step_s(name, by_paper)) for name, by_paper in columns]
    saved = [f"{1 - seconds / steps[0]:.0%}" for seconds in (steps[2], steps[-1])]
    return [row.setup.label, *(f"{seconds:.1f}" for seconds in steps), *saved]


def plot(rows: list[Row]) -> Any:
    """Bars of the paper's method with the paper's numbers as marks, and of ours beside them."""
    figure, axes = common.new_figure(1, 12, 4.8)
    bars = [(name, True) for name in SETTINGS] + [("ca-partial", False)]
    width = 0.16
    highest = 1.1 * max(statistics.median(row.iteration_s("baseline", True)) for row in rows)
    for place, (name, by_paper) in enumerate(bars):
        xs = [row + (place - 2) * width for row in range(len(rows))]
        times = [statistics.median(row.iteration_s(name, by_paper)) for row in rows]
        label = common.LABELS[name] + (", paper's method" if name in PARTIAL and by_paper else "")
        style = {} if by_paper else {"hatch": "///", "edgecolor": "white"}
        label = label if by_paper else "SkipPipe, ours (annealed)"
        axes.bar(xs, times, 0.9 * width, color=common.COLOURS[name], label=label, **style)
        if by_paper:
            paper = [row.setup.paper[place] for row in rows]
            mark_paper(axes, list(zip(xs, times, paper, strict=True)), highest, place == 0)
    labels = [row.setup.label.replace(", ", "\n").replace("the original's ", "the original's\n") for row in rows]
    axes.set_xticks(range(len(rows)), labels, fontsize=8)
    axes.set(ylabel="seconds of one iteration", ylim=(0, highest))
    axes.set_title("Iteration time, simulated (less is better)", pad=56)
    axes.grid(False, axis="x")
    axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.04), ncols=3)
    return figure


def mark_paper(axes: Any, marks: list[tuple[float, float, float | None]], highest: float, labelled: bool) -> None:
    """The paper's numbers as short lines, at (place, our number, theirs); what is too high is written at the top."""
    inside = [(x, theirs) for x, _, theirs in marks if theirs is not None and theirs < highest]
    label = "reported in the paper" if labelled else None
    axes.plot([x for x, _ in inside], [y for _, y in inside], "k_", ms=10, mew=2.5, label=label)
    for x, ours, theirs in marks:
        told = [f"{ours:.0f}"] if ours >= highest else []
        if theirs is not None and theirs >= highest:
            told.append(f"paper: {theirs:g}")
        if told:
            axes.annotate(", ".join(told), (x, 1.01 * highest), ha="center", fontsize=8, annotation_clip=False)


def measure(setting: str, scale: str) -> dict[str, Any]:
    """Run a setting of the shipped schedule with run.sh; its summary, or how it failed."""
    name = f"iteration-time-{setting}-{time.strftime('%Y%m%d-%H%M%S')}"
    time_scale, iterations = (0.2, 4) if scale == "quick" else (1.0, 10)
    command = [
        "./run.sh",
        "0",
        "20",
        setting,
        "8",
        f"schedule={ORIGINAL}",
        f"name={name}",
        f"iterations={iterations}",
        f"emulation.time_scale={time_scale}",
    ]
    print(" ".join(command), flush=True)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        return {"setting": setting, "failed": " ".join(done.stderr.split())[-200:]}
    summary: dict[str, Any] = json.loads((Path("runs") / name / "summary.json").read_text())
    return {**summary, "time_scale": time_scale}


def report_measured(results: common.Results, summaries: list[dict[str, Any]]) -> None:
    """Table of what run.sh measured on the original's schedule."""
    results.text(
        f"## Measured\n\n`{ORIGINAL}` by `run.sh`: 20 processes of this machine train a small model over emulated "
        "links; medians in the schedule's seconds. \"Original\": what the original's runtime measured on two cores."
    )
    if not summaries:
        results.text("Not run.")
        return
    original = {"baseline": 89.5, "random": 45.3, "non-ca-partial": 32.1, "ca-partial": 30.0}
    base = summaries[0].get("measured_step_s")
    base_iteration = summaries[0].get("measured_iteration_s")
    rows: list[list[Any]] = []
    for summary in summaries:
        label = common.LABELS[summary["setting"]]
        if "failed" in summary:
            rows.append([label, f"failed: {summary['failed']}", *[None] * 6])
            continue
        rows.append(
            [
                label,
                f"{summary['measured_iteration_s']:.2f}",
                f"{summary['expected_iteration_s']:.2f}",
                f"{summary['measured_step_s']:.2f}",
                f"{summary['expected_step_s']:.2f}",
                f"{1 - summary['measured_iteration_s'] / base_iteration:.1%}" if base_iteration else None,
                f"{1 - summary['measured_step_s'] / base:.1%}" if base else None,
                original[summary["setting"]],
            ]
        )
    results.table(
        [
            "setting",
            "iteration measured",
            "expected",
            "step measured",
            "expected",
            "iteration saved",
            "step saved",
            "original, iteration",
        ],
        rows,
    )
    plans = Schedule.load(ORIGINAL).settings
    most = 1 - plans["ca-partial"].expected_step_s / plans["baseline"].expected_step_s
    results.text(
        f"A step has the data-parallel sync too, {max(plans['baseline'].sync_s):.1f} s on this schedule's stages "
        f"whatever the paths, so {most:.1%} of the step is all that SkipPipe's paths can save here; the paper's 55% "
        "are of the iteration. The joint search above goes for the step and chooses the stages for their sync as well."
    )


if __name__ == "__main__":
    common.main(experiment)
