"""How long 20, 60 and 120 nodes take to find each other and start: `python benchmarks/start_up.py`."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import whole_runs

from skippipe.schedule import Costs, Schedule
from skippipe.schedule.costs import Rates
from skippipe.schedule.plan import Pipeline, make_plan

SIZES = {20: [5, 3, 3, 3, 3, 3], 60: [15, 9, 9, 9, 9, 9], 120: [30, 18, 18, 18, 18, 18]}
STAGE_CHOICES = [(1, 2, 3), (3, 4, 5), (1, 4, 5), (1, 2, 5), (2, 3, 4)]
"""Visited stages of five microbatches that visit all stages evenly."""


def schedule(nodes: int) -> Schedule:
    """Even, skipping paths over nodes that are all alike."""
    first = np.cumsum([0, *SIZES[nodes]])
    stages = [list(range(first[i], first[i + 1])) for i in range(len(SIZES[nodes]))]
    paths = []
    for origin in stages[0]:
        for choice in STAGE_CHOICES:
            paths.append([origin, *(stages[stage][origin % len(stages[stage])] for stage in choice)])
    costs = Costs.of_rates(np.full(nodes, 0.1), Rates(), np.full((nodes, nodes), 0.1))
    pipeline = Pipeline(6, 4, 3, 1, 64, 4, 64, 2, len(STAGE_CHOICES), 4 * 64 * 64 * 2, 8 * 66_000)
    plan = make_plan(stages, np.array(paths), costs, 3, [0.0] * 6, {"solver": "by hand", "seed": 0, "seconds": 0})
    ones = np.ones((nodes, nodes))
    return Schedule("alike", ("here",) * nodes, ones, ones, pipeline, costs, {"ca-partial": plan})


def main() -> None:
    """Start runs of two iterations and print when their nodes were ready."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each size; medians are shown")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/start_up.md"), help="results file")
    arguments = parser.parse_args()
    lines = whole_runs.header("Start-up", f"python benchmarks/start_up.py --repeats {arguments.repeats}")
    lines += ["| nodes | all ready s after the launcher's start (median; all) | memory of a node MB |", "|---|---|---|"]
    with tempfile.TemporaryDirectory() as place:
        for nodes in SIZES:
            path = Path(place) / f"{nodes}.json"
            schedule(nodes).save(path)
            ready, memory = [], []
            for repeat in range(arguments.repeats):
                folder = Path(place) / "runs" / f"{nodes}-{repeat}"
                process = whole_runs.start(
                    [
                        "0",
                        str(nodes),
                        "ca-partial",
                        "2",
                        f"schedule={path}",
                        f"runs={folder.parent}",
                        f"name={folder.name}",
                        "iterations=12",
                    ]
                )
                whole_runs.wait_for_iteration(process, folder)
                if process.poll() is None:
                    memory.append(statistics.mean(whole_runs.proportional_megabytes(folder)))
                ready.append(whole_runs.ready_seconds(whole_runs.finish(process)))
                time.sleep(1)
            every = ", ".join(f"{value:.1f}" for value in ready)
            lines.append(f"| {nodes} | {statistics.median(ready):.1f} ({every}) | {statistics.median(memory):.0f} |")
            print(lines[-1], flush=True)
    arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
