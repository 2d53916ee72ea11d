"""How good the schedule search is, how long it takes and how it grows: prints the tables of results/search.md.

    python benchmarks/search.py [--seeds 5] [--out benchmarks/results/search.md]

Every search runs in its own process, whose peak memory is measured; the compiler runs once before.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from instances import (
    DEFAULTS,
    GIVEN,
    ORIGINAL,
    PAPER_NAMES,
    SCALES,
    SETTINGS,
    config_of,
    instance_of,
    peak_memory_mib,
)

from skippipe.schedule import Schedule
from skippipe.search.compiled import first_come_first_served, follow_order
from skippipe.search.driver import search
from skippipe.search.progress import Progress
from skippipe.search.warm_up import warm_up

PAPER_SEEDS = 2
REACH_S = {GIVEN: 33.4, DEFAULTS: 72.0}


def one_search(name: str, seed: int) -> dict[str, Any]:
    """Search one instance: times of each setting, seconds and peak memory."""
    config = config_of(name, seed)
    warm_up(config)
    instance = instance_of(name, config)
    begin = time.monotonic()
    schedule = search(instance, config, Progress())
    seconds = time.monotonic() - begin
    plans = schedule.settings
    alone = seconds - sum(plan.search["seconds"] for setting, plan in plans.items() if setting != "ca-partial")
    return {
        "iteration_s": {setting: plan.expected_iteration_s for setting, plan in plans.items()},
        "step_s": {setting: plan.expected_step_s for setting, plan in plans.items()},
        "bound_s": plans["ca-partial"].search["lower_bound_s"],
        "bound_of_stages_s": plans["ca-partial"].search["lower_bound_of_stages_s"],
        "seconds": seconds,
        "alone_s": alone,
        "memory_mib": peak_memory_mib(),
    }


def in_own_process(name: str, seed: int) -> dict[str, Any] | None:
    """The result of one_search; None if it failed, with its last line on stderr."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", name, "--seed", str(seed)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"{name}, seed {seed} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}, seed {seed}: {result}", file=sys.stderr)
    return result


def row(name: str, seeds: int) -> tuple[str, dict[str, Any] | None]:
    """One line of the reach table: medians over the seeds."""
    results = [result for seed in range(seeds) if (result := in_own_process(name, seed))]
    if not results:
        return f"| {name} | failed | | | | | | | | |", None
    middle = {setting: statistics.median(result["iteration_s"][setting] for result in results) for setting in SETTINGS}
    ordered = sum(
        times["baseline"] > times["random"] > times["non-ca-partial"] >= times["ca-partial"]
        for times in (result["iteration_s"] for result in results)
    )
    median = {
        field: statistics.median(result[field] for result in results) for field in ("seconds", "alone_s", "memory_mib")
    }
    worst = max(result["iteration_s"]["ca-partial"] for result in results)
    gaps = " | ".join(
        f"{statistics.median(result['iteration_s']['ca-partial'] / result[bound] - 1 for result in results):+.0%}"
        for bound in ("bound_s", "bound_of_stages_s")
    )
    times = " | ".join(f"{middle[setting]:.2f}" for setting in SETTINGS)
    return (
        f"| {name} | {times} (worst {worst:.2f}) | {gaps} | {ordered} of {len(results)} | {median['alone_s']:.1f} |"
        f" {median['seconds']:.1f} | {median['memory_mib']:.0f} |"
    ), {**median, "ca_s": middle["ca-partial"]}


def simulations_a_minute() -> list[str]:
    """Speed of both kernels on the original's ca-partial, one core."""
    schedule = Schedule.load(ORIGINAL)
    plan, costs = schedule.settings["ca-partial"], schedule.costs.arrays
    paths, arrays = plan.paths_array, plan.order_arrays(schedule.nodes)
    lines = []
    for name, kernel, rest in (
        ("first come, first served", first_come_first_served, (schedule.pipeline.memory,)),
        ("following an order", follow_order, arrays),
    ):
        kernel(paths, costs, *rest)
        begin, count = time.perf_counter(), 0
        while time.perf_counter() - begin < 2.0:
            for _ in range(500):
                kernel(paths, costs, *rest)
            count += 500
        each = (time.perf_counter() - begin) / count
        lines.append(f"| {name} | {each * 1e6:.1f} | {60 / each:,.0f} |")
    return lines


def report(seeds: int) -> str:
    """The whole results file."""
    warm_up(config_of(GIVEN, 0))
    header = [
        "| instance | baseline | random | non-ca-partial | ca-partial | over any stages' bound |"
        " over its stages' bound | in the paper's order | ca-partial, s of search | all four, s | MiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines, missed = [*header], []
    for name in (GIVEN, DEFAULTS, *PAPER_NAMES):
        text, median = row(name, min(seeds, PAPER_SEEDS) if name in PAPER_NAMES else seeds)
        lines.append(text)
        if name in REACH_S and (median is None or median["ca_s"] > REACH_S[name]):
            missed.append(name)
    scale = [*header, *(row(f"{nodes} nodes on a square", 1)[0] for nodes in SCALES)]
    # Not before: what a search takes is measured in processes without torch.
    from whole_runs import hardware

    conditions = (
        f"`python benchmarks/search.py --seeds {seeds}`, {datetime.date.today()}, {hardware()},"
        f" shared with other work, Python {platform.python_version()}. Expected iteration in"
        f" seconds, the median of {seeds} seeds ({min(seeds, PAPER_SEEDS)} for the paper's setups); every schedule"
        " validates and its times are the simulation's. ca-partial stands against two lower bounds: whatever nodes are"
        " in which stage, and with its own stages. 'ca-partial, s of search' includes the choice of the stages."
    )
    asked = (
        f"Asked: {GIVEN} <= {REACH_S[GIVEN]} s in 10 s; {DEFAULTS} <= {REACH_S[DEFAULTS]:.0f} s in 30 s, all four"
        f" settings in 90 s. Missed: {', '.join(missed) or 'none'}."
    )
    speed = ["| kernel | µs | a minute |", "|---|---|---|", *simulations_a_minute()]
    parts = [
        ["# The schedule search"],
        [conditions],
        ["## Reach"],
        lines,
        [asked],
        ["## Scale (one seed, time budget 60 s)"],
        scale,
        ["## Simulations of the 20-node instance on one core"],
        speed,
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def main() -> None:
    """Print the report and write it, or one search's result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/search.md"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one_search(options.one, options.seed)))
        return
    text = report(options.seeds)
    options.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
