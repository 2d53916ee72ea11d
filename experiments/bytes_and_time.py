"""Bytes and time: what each setting sends in a step, against the time that it saves over the full pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import common
from searching import add_search, baselines_told, searched_by_both

from skippipe.schedule import Plan, Schedule
from skippipe.schedule.costs import GIB

ORIGINAL = Path("configs/schedules/original-20-nodes.json")


def experiment() -> None:
    """Count bytes in the shipped schedule and in one searched anew."""
    arguments = common.parse_arguments(__doc__, add_search)
    scale = "quick" if arguments.quick else "full"
    results = common.Results(
        f"bytes-and-time-{scale}", f"Bytes moved against time saved, {scale} scale", arguments.results
    )
    schedules = {"original's schedule": Schedule.load(ORIGINAL), **searched_by_both(arguments)}
    results.text(
        "20 nodes, 33% skip. Bytes of one step, in fp32. Activations and gradients: 2 x path length hops a "
        "microbatch. Sync: a ring all-reduce of a stage's gradients among its nodes, 2 (n - 1) / n x gradient bytes on "
        'each of n nodes; embedding and head left out as in the cost model. "Dear": activations and gradients on the '
        f"slowest quarter of the links. {baselines_told(arguments)}"
    )
    for name, schedule in schedules.items():
        results.text(f"## {name}")
        results.table(
            [
                "setting",
                "activations and gradients (GiB)",
                "of it dear (GiB)",
                "sync (GiB)",
                "bytes saved",
                "step (s)",
                "time saved",
            ],
            rows_of(schedule),
        )
    results.text(
        "The paper gives no bytes. Skipping a third of the stages saves a third of the activation bytes. Fewer dear "
        "bytes than the random draw, which is blind to costs, have: "
        + "; ".join(f"{off_dear_links(schedule)} ({name})" for name, schedule in schedules.items())
        + "."
    )
    results.figure(plot(schedules), results.name, "Bytes moved and time needed by every setting")
    results.write()


def path_bytes(schedule: Schedule, plan: Plan, dear_only: bool = False) -> int:
    """Bytes of activations and gradients in a step, on all links or on the slowest quarter of them."""
    bandwidths = sorted(
        schedule.bandwidth_gib_s[a, b] for a in range(schedule.nodes) for b in range(schedule.nodes) if a != b
    )
    limit = bandwidths[len(bandwidths) // 4]
    hops = [(a, b) for path in plan.paths for a, b in zip(path, [*path[1:], path[0]], strict=True) if a != b]
    counted = [hop for hop in hops if not dear_only or schedule.bandwidth_gib_s[hop] <= limit]
    return 2 * len(counted) * schedule.pipeline.activation_bytes


def off_dear_links(schedule: Schedule) -> str:
    """Settings other than the baseline whose paths keep off dear links more than random ones do."""
    dear = {name: path_bytes(schedule, plan, True) for name, plan in schedule.settings.items()}
    fewer = [common.LABELS[name] for name in dear if name != "baseline" and dear[name] < dear["random"]]
    return ", ".join(fewer) or "no setting"


def sync_bytes(schedule: Schedule, plan: Plan) -> int:
    """Bytes of a step's data-parallel sync; stage_bytes has both halves of the all-reduce."""
    return sum((len(stage) - 1) * schedule.pipeline.stage_bytes for stage in plan.stages)


def rows_of(schedule: Schedule) -> list[list[Any]]:
    """One row a setting."""
    base = schedule.settings["baseline"]
    whole = path_bytes(schedule, base) + sync_bytes(schedule, base)
    rows: list[list[Any]] = []
    for name, plan in schedule.settings.items():
        moved, sync = path_bytes(schedule, plan), sync_bytes(schedule, plan)
        rows.append(
            [
                common.LABELS[name],
                f"{moved / GIB:.2f}",
                f"{path_bytes(schedule, plan, True) / GIB:.2f}",
                f"{sync / GIB:.2f}",
                f"{1 - (moved + sync) / whole:.0%}",
                f"{plan.expected_step_s:.1f}",
                f"{1 - plan.expected_step_s / base.expected_step_s:.0%}",
            ]
        )
    return rows


def plot(schedules: dict[str, Schedule]) -> Any:
    """Bytes moved across, time needed upwards; each setting a point, relative to the full pipeline."""
    figure, panels = common.new_figure(len(schedules), 14, 4.4)
    for axes, (title, schedule) in zip(panels, schedules.items(), strict=True):
        base = schedule.settings["baseline"]
        for name, plan in schedule.settings.items():
            moved = 100 * path_bytes(schedule, plan) / path_bytes(schedule, base)
            taken = 100 * plan.expected_step_s / base.expected_step_s
            axes.scatter(moved, taken, s=80, color=common.COLOURS[name], label=common.LABELS[name], zorder=3)
        axes.axline((0, 0), slope=1, color="k", lw=0.8, ls="--", alpha=0.5)
        axes.text(34, 37, "time falls as bytes do", rotation=38, fontsize=8, alpha=0.7)
        axes.set(
            xlim=(0, 110),
            ylim=(0, 110),
            title=title,
            xlabel="activation and gradient bytes (% of DT-FM*)",
            ylabel="time of a step (% of DT-FM*)",
        )
    panels[-1].legend(frameon=False, fontsize=9, loc="upper left")
    return figure


if __name__ == "__main__":
    common.main(experiment)
