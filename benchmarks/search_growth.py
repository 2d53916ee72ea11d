"""How the search grows with the nodes at equal numbers of steps: `python benchmarks/search_growth.py`.

The budgets of search.py hide growth, since a search uses whatever time it has. Here every phase makes a fixed, small
number of steps on a synthetic network and may take as long as it needs.
"""

from __future__ import annotations

import argparse
import math
import platform
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from instances import SCALES, config_of, instance_of, peak_memory_mib

from skippipe.search.driver import search
from skippipe.search.progress import Progress
from skippipe.search.warm_up import warm_up

STEPS = {"population": 20, "trials": 200, "constraint_sets": 10, "pipeline_steps": 2000, "path_steps": 2000}


def one(nodes: int) -> str:
    """Seconds of the search and of writing the file, and peak memory, as text."""
    name = f"{nodes} nodes on a square"
    config = replace(config_of(name, 0), time_budget_s=None, **STEPS)  # type: ignore[arg-type]
    warm_up(config)
    instance = instance_of(name, config)
    begin = time.monotonic()
    schedule = search(instance, config, Progress())
    searched = time.monotonic() - begin
    text = schedule.to_json()
    written = time.monotonic() - begin - searched
    return f"{searched} {written} {len(text) / 1e6} {peak_memory_mib()}"


def main() -> None:
    """Each size in a process of its own; print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/search_growth.md"), help="results file")
    arguments = parser.parse_args()
    if arguments.one:
        print(one(arguments.one))
        return
    # Not before: what a search takes is measured in processes without torch.
    from whole_runs import hardware

    steps = ", ".join(f"{name} {value}" for name, value in STEPS.items())
    lines = [
        "# Growth of the search with the nodes",
        "",
        f"`python benchmarks/search_growth.py`, {time.strftime('%Y-%m-%d')}, {hardware()},"
        f" Python {platform.python_version()}. All four settings of the paper, as much time as they need;"
        f" fixed steps: {steps}.",
        "",
        "| nodes | search s | per n² log n, against 20 nodes | write s | file MB | MiB |",
        "|---|---|---|---|---|---|",
    ]
    first = 0.0
    for nodes in SCALES:
        done = subprocess.run(
            [sys.executable, __file__, "--one", str(nodes)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            lines.append(f"| {nodes} | failed: {done.stderr.strip().splitlines()[-1]} | | | | |")
            continue
        searched, written, megabytes, memory = map(float, done.stdout.split()[-4:])
        share = searched / (nodes**2 * math.log(nodes))
        first = first or share
        lines.append(
            f"| {nodes} | {searched:.1f} | {share / first:.2f} | {written:.2f} | {megabytes:.1f} | {memory:.0f} |"
        )
        print(lines[-1], flush=True)
    arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
