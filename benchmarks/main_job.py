"""The main job in all settings: start-up, memory, loss, measured over expected: `python benchmarks/main_job.py`.

Settings take turns, each as `./run.sh 0 20 SETTING 8` does it; nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import whole_runs

from skippipe.report.metrics import read_summary
from skippipe.schedule import Schedule

COLUMNS = [
    "setting",
    "iterations",
    "ready s",
    "PSS of a node MB",
    "loss first",
    "loss last",
    "iteration s measured",
    "expected",
    "step s measured",
    "expected",
    "measured over expected",
    "MB sent",
]


def measure(setting: str, schedule: Path, extra: list[str]) -> list[str]:
    """One row of the table."""
    nodes = Schedule.load(schedule).nodes
    name = f"benchmark-{setting}-{time.strftime('%H%M%S')}"
    folder = Path("runs") / name
    arguments = ["0", str(nodes), setting, "8", f"name={name}", f"schedule={schedule}", *extra]
    process = whole_runs.start(arguments)
    whole_runs.wait_for_iteration(process, folder)
    memory = whole_runs.proportional_megabytes(folder)
    text = whole_runs.finish(process)
    found = read_summary(folder)
    return [
        setting,
        str(found.iterations),
        f"{whole_runs.ready_seconds(text):.1f}",
        f"{sum(memory) / len(memory):.0f} (most {max(memory):.0f})",
        f"{found.loss_first:.3f}",
        f"{found.loss_last:.3f}",
        f"{found.measured_iteration_s:.2f}",
        f"{found.expected_iteration_s:.2f}",
        f"{found.measured_step_s:.2f}",
        f"{found.expected_step_s:.2f}",
        f"{found.measured_over_expected:.3f}",
        f"{found.bytes_sent / 1e6:.0f}",
    ]


def main() -> None:
    """Run every setting of the schedule and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedule", type=Path, default=Path("configs/schedules/original-20-nodes.json"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/main_job.md"), help="results file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for run.sh")
    arguments = parser.parse_args()
    rows = []
    for setting in Schedule.load(arguments.schedule).settings:
        try:
            rows.append(measure(setting, arguments.schedule, arguments.overrides))
        except RuntimeError as error:
            rows.append([setting, f"failed: {str(error).splitlines()[-1]}", *[""] * (len(COLUMNS) - 2)])
        print(" | ".join(rows[-1]), flush=True)
    command = f"python benchmarks/main_job.py --schedule {arguments.schedule} {' '.join(arguments.overrides)}".strip()
    lines = whole_runs.header("The main job", command)
    lines += [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS), *(f"| {' | '.join(row)} |" for row in rows)]
    arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
