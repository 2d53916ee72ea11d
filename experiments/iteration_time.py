"""Iteration time: the paper's five setups, one cluster and five, every setting simulated; the 20-node one measured."""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
from searching import searched

from skippipe.schedule import Schedule

SETTINGS = ("baseline", "random", "non-ca-partial", "ca-partial")
ORIGINAL = Path("configs/schedules/original-20-nodes.json")


@dataclass(frozen=True)
class Setup:
    """One row: what is searched, what the paper reports for the four settings, and why we differ."""

    label: str
    flags: tuple[str, ...]
    paper: tuple[float | None, ...]
    why: str


SETUPS = (
    Setup("18 nodes, 25% skip, 4k tokens", ("--config", "configs/paper/search-18-nodes-4k.yaml"),
          (29.7, 16.9, 16.7, 15.4), ""),
    Setup("18 nodes, 25% skip, 8k tokens", ("--config", "configs/paper/search-18-nodes-8k.yaml"),
          (45.4, 34.4, 33.1, 25.6), ""),
    Setup("18 nodes, 25% skip, 16k tokens", ("--config", "configs/paper/search-18-nodes-16k.yaml"),
          (91.8, 65.6, 63.1, 55.4), ""),
    Setup("20 nodes, 12 locations, 33% skip", ("--config", "configs/paper/search-20-nodes.yaml"),
          (141.7, 71.7, 59.4, 52.6), ""),
    Setup("42 nodes, 25% skip", ("--config", "configs/paper/search-42-nodes.yaml"),
          (141.0, 1175.0, None, 108.0), ""),
    Setup("20 nodes in 5 clusters, 33% skip", ("--config", "configs/paper/search-20-nodes.yaml",
          "--subset", "5-clusters"), (None,) * 4, ""),
    Setup("20 nodes in a single cluster, 33% skip", ("--config", "configs/paper/search-20-nodes.yaml",
          "--subset", "single-cluster"), (None,) * 4, ""),
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this experiment takes besides the scale."""
    parser.add_argument("--budget", type=float, help="seconds of search a setup (default: 60 quick, 600 full)")
    parser.add_argument("--setups", type=int, default=len(SETUPS), help="only the first setups")
    parser.add_argument("--no-run", action="store_true", help="leave the measurement with run.sh out")


def experiment() -> None:
    """Search every setup, measure the shipped schedule, write the results."""
    arguments = common.parse_arguments(__doc__, add_arguments)
    scale = "quick" if arguments.quick else "full"
    budget = arguments.budget or (60.0 if arguments.quick else 600.0)
    results = common.Results(f"iteration-time-{scale}", f"Iteration time, {scale} scale", arguments.results)
    rows = [
        (setup, searched(*setup.flags, "--time-budget-s", f"{budget:g}")) for setup in SETUPS[: arguments.setups]
    ]
    report_simulated(results, rows, budget)
    report_measured(results, [] if arguments.no_run else [measure(setting, scale) for setting in SETTINGS])
    results.write()


def report_simulated(results: common.Results, rows: list[tuple[Setup, Schedule]], budget: float) -> None:
    """Tables of iteration and step times beside the paper's, a sentence a row, and the figure."""
    results.text(
        f"## Simulated\n\nSeconds of one iteration, from the first forward to the last backward: ours, and in brackets "
        f"the paper's (read off its figures, +-0.3). At most {budget:g} s of search a setup for everything "
        "(`create_schedule.py` with the named file), network gcp-12. \"Saved\": SkipPipe against DT-FM*."
    )
    header = ["setup", *(common.LABELS[name] for name in SETTINGS), "saved", "saved in the paper"]
    results.table(header, [iteration_row(setup, schedule) for setup, schedule in rows])
    results.text("The same with the data-parallel sync of the stages (expected step), and the joint search:")
    results.table(
        ["setup", *common.LABELS.values(), "saved by SkipPipe", "saved by the joint search"],
        [step_row(setup, schedule) for setup, schedule in rows],
    )
    results.text("Why we differ from the paper:\n\n" + "\n".join(
        f"- {setup.label}: {setup.why}" for setup, _ in rows if setup.why
    ))  # fmt: skip
    results.figure(plot(rows), results.name, "Iteration time of every setup and setting, ours and the paper's")


def iteration_row(setup: Setup, schedule: Schedule) -> list[Any]:
    """One setup's iteration times beside the paper's."""
    ours = [schedule.settings[name].expected_iteration_s for name in SETTINGS]
    cells = [f"{mine:.1f}" + (f" ({paper:g})" if paper else "") for mine, paper in zip(ours, setup.paper, strict=True)]
    first, last = setup.paper[0], setup.paper[-1]
    return [setup.label, *cells, f"{1 - ours[-1] / ours[0]:.0%}", f"{1 - last / first:.0%}" if first and last else None]


def step_row(setup: Setup, schedule: Schedule) -> list[Any]:
    """One setup's step times."""
    steps = {name: plan.expected_step_s for name, plan in schedule.settings.items()}
    compared = ("ca-partial", "joint")
    saved = [f"{1 - steps[name] / steps['baseline']:.0%}" if name in steps else None for name in compared]
    return [setup.label, *(f"{steps[name]:.1f}" if name in steps else None for name in common.LABELS), *saved]


def plot(rows: list[tuple[Setup, Schedule]]) -> Any:
    """Bars of our iteration times with the paper's as marks, relative to the setup's DT-FM*."""
    figure, axes = common.new_figure(1, 10, 4.6)
    width = 0.2
    for place, name in enumerate(SETTINGS):
        xs = [row + (place - 1.5) * width for row in range(len(rows))]
        axes.bar(xs, [schedule.settings[name].expected_iteration_s for _, schedule in rows], 0.9 * width,
                 color=common.COLOURS[name], label=common.LABELS[name])  # fmt: skip
        marks = [(x, setup.paper[place]) for x, (setup, _) in zip(xs, rows, strict=True) if setup.paper[place]]
        axes.plot([x for x, _ in marks], [y for _, y in marks], "k_", ms=9, mew=2,
                  label="reported in the paper" if place == 0 else None)  # fmt: skip
    axes.set_xticks(range(len(rows)), [setup.label.replace(", ", "\n") for setup, _ in rows], fontsize=8)
    axes.set(ylabel="seconds of one iteration (log scale)", yscale="log",
             title="Iteration time, simulated (less is better)")  # fmt: skip
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(False, axis="x")
    axes.legend(frameon=False, fontsize=9, ncols=3)
    return figure


def measure(setting: str, scale: str) -> dict[str, Any]:
    """Run a setting of the shipped schedule with run.sh; its summary, or how it failed."""
    name = f"iteration-time-{setting}-{time.strftime('%Y%m%d-%H%M%S')}"
    time_scale, iterations = (0.2, 4) if scale == "quick" else (1.0, 10)
    command = ["./run.sh", "0", "20", setting, "8", f"schedule={ORIGINAL}", f"name={name}", f"iterations={iterations}",
               f"emulation.time_scale={time_scale}"]  # fmt: skip
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
        rows.append([
            label, f"{summary['measured_iteration_s']:.2f}", f"{summary['expected_iteration_s']:.2f}",
            f"{summary['measured_step_s']:.2f}", f"{summary['expected_step_s']:.2f}",
            f"{1 - summary['measured_iteration_s'] / base_iteration:.1%}" if base_iteration else None,
            f"{1 - summary['measured_step_s'] / base:.1%}" if base else None, original[summary["setting"]],
        ])  # fmt: skip
    results.table(
        ["setting", "iteration measured", "expected", "step measured", "expected", "iteration saved", "step saved",
         "original, iteration"], rows,
    )  # fmt: skip


if __name__ == "__main__":
    common.main(experiment)
