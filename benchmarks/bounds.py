"""How close the lower bounds for any stages are: the table of results/bounds.md.

    python benchmarks/bounds.py [--rows NAME ..]

Searches nothing: the plans' values are those of results/joint.md and results/search.md.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
from instances import DEFAULTS, PAPER_NAMES, config_of, instance_of
from joint_rows import DEEP, ROWS, WIDE, original

from skippipe.fields import build
from skippipe.schedule import Plan
from skippipe.search.bounds import bounds_of_any_stages
from skippipe.search.config import SearchConfig
from skippipe.search.origin_bounds import closer_bounds_of_any_stages
from skippipe.search.problem import Instance
from skippipe.search.rounds import every_round, plan_of, random_paths


@dataclass(frozen=True)
class Known:
    """A row: what its best plan takes in seconds, and whether that is a step."""

    best_s: float
    sync: bool


JOINT = {
    "original, iteration": Known(24.70, False),
    "original, step, 1 layer": Known(32.39, True),
    "original, step, 4 layers' sync": Known(51.48, True),
    "defaults, iteration": Known(59.26, False),
    "42 nodes, step": Known(42.71, True),
    "100 nodes, step": Known(33.62, True),
}
"""The best plans of `joint` in results/joint.md, 60 or 300 s."""
PARTIAL = {
    DEFAULTS: 66.85,
    "18-nodes-4k": 13.86,
    "18-nodes-8k": 22.32,
    "18-nodes-16k": 39.21,
    "20-nodes": 39.05,
    "42-nodes": 93.15,
    "20 nodes on a square": 29.22,
    "42 nodes on a square": 36.55,
    "100 nodes on a square": 25.28,
}
"""Iterations of ca-partial in results/search.md."""
ALL = {**JOINT, **{name: Known(best_s, False) for name, best_s in PARTIAL.items()}}
assert set(JOINT) == set(ROWS)
assert set(PAPER_NAMES) < set(PARTIAL)


def instance_of_row(name: str) -> Instance:
    """The instance of a row, without a search."""
    if name.startswith("original, "):
        layers = 4 if "4 layers" in name else 1
        return original(JOINT[name].sync, layers, corrected=JOINT[name].sync)[0]
    if name not in JOINT:
        return instance_of(name, config_of(name, 0))
    fields = {"42 nodes, step": DEEP, "100 nodes, step": WIDE}.get(name, {"network": "gcp-12-as-published"})
    return Instance.from_config(build(SearchConfig, {"settings": ["ca-partial"], **fields}, "benchmark"))


def any_plan(instance: Instance) -> Plan:
    """Some skipping plan: the bounds take from it only its path length and what its origins send."""
    cuts = np.cumsum(instance.stage_sizes)[:-1]
    stages = tuple(tuple(part.tolist()) for part in np.split(np.arange(instance.nodes), cuts))
    placed = instance.with_stages(stages)
    return plan_of(placed, every_round(placed, random_paths(placed, np.random.default_rng(0))), {})


def main() -> None:
    """Print a line for each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", default=list(ALL), choices=list(ALL))
    print("| instance | bound before | closer bound | best plan known | over the bound before | over the closer | s |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in parser.parse_args().rows:
        instance, known = instance_of_row(name), ALL[name]
        plan = any_plan(instance)
        quick_s = bounds_of_any_stages(instance, plan)[known.sync]
        begin = time.perf_counter()
        closer_s = closer_bounds_of_any_stages(instance, plan)[known.sync]
        seconds = time.perf_counter() - begin
        print(
            f"| {name} | {quick_s:.2f} | {closer_s:.2f} | {known.best_s:.2f} | {known.best_s / quick_s - 1:.0%} |"
            f" {known.best_s / closer_s - 1:.0%} | {seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
