"""How close the lower bounds for any stages are: writes the table of results/bounds.md.

    python benchmarks/bounds.py [--rows NAME ..]

Searches nothing: the best plans known are those of results/joint.md and results/search.md. Rows that are not asked for
keep their bounds, and stand beside what those files have now: `--rows` alone only brings the table up to them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from instances import DEFAULTS, PAPER_NAMES, config_of, instance_of
from joint_rows import DEEP, ROWS, WIDE, original
from tables import rows, with_table

from skippipe.fields import build
from skippipe.schedule import Plan
from skippipe.search.bounds import bounds_of_any_stages
from skippipe.search.config import SearchConfig
from skippipe.search.origin_bounds import closer_bounds_of_any_stages
from skippipe.search.problem import Instance
from skippipe.search.rounds import every_round, plan_of, random_paths

RESULTS = Path(__file__).resolve().parent / "results"
BOUNDS = RESULTS / "bounds.md"
HEADER = [
    "instance",
    "bound before",
    "closer bound",
    "best plan known",
    "over the bound before",
    "over the closer",
    "s",
]
PARTIAL = (DEFAULTS, *PAPER_NAMES, *(f"{nodes} nodes on a square" for nodes in (20, 42, 100)))
"""Rows whose plans are those of ca-partial."""
ALL = (*ROWS, *PARTIAL)


def is_step(name: str) -> bool:
    """Whether a row is about the step, else about the iteration."""
    return "step" in name


def best_known_s() -> dict[str, float]:
    """What the best plan of each row takes: the best seed of joint in 60 s or its 300 s, ca-partial's median."""
    minute = rows(RESULTS / "joint.md", "instance | ca-partial | joint | spread")
    five = rows(RESULTS / "joint.md", "instance | ca-partial | joint | below")
    partial = rows(RESULTS / "search.md", "instance")
    best = {name: min(float(minute[name]["spread"].split()[0]), float(five[name]["joint"])) for name in ROWS}
    return best | {name: float(partial[name]["ca-partial"].split()[0]) for name in PARTIAL}


def instance_of_row(name: str) -> Instance:
    """The instance of a row, without a search."""
    if name.startswith("original, "):
        layers = 4 if "4 layers" in name else 1
        return original(is_step(name), layers, corrected=is_step(name))[0]
    if name in PARTIAL:
        return instance_of(name, config_of(name, 0))
    fields = {"42 nodes, step": DEEP, "100 nodes, step": WIDE}.get(name, {"network": "gcp-12-as-published"})
    return Instance.from_config(build(SearchConfig, {"settings": ["ca-partial"], **fields}, "benchmark"))


def any_plan(instance: Instance) -> Plan:
    """Some skipping plan: the bounds take from it only its path length and what its origins send."""
    cuts = np.cumsum(instance.stage_sizes)[:-1]
    stages = tuple(tuple(part.tolist()) for part in np.split(np.arange(instance.nodes), cuts))
    placed = instance.with_stages(stages)
    return plan_of(placed, every_round(placed, random_paths(placed, np.random.default_rng(0))), {})


def measured(name: str) -> list[str]:
    """Both bounds of a row in seconds, and how long the closer one took."""
    instance, sync = instance_of_row(name), is_step(name)
    plan = any_plan(instance)
    quick_s = bounds_of_any_stages(instance, plan)[sync]
    begin = time.perf_counter()
    closer_s = closer_bounds_of_any_stages(instance, plan)[sync]
    return [f"{quick_s:.2f}", f"{closer_s:.2f}", f"{time.perf_counter() - begin:.0f}"]


def main() -> None:
    """Write the table, and print each row as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", default=list(ALL), choices=list(ALL))
    asked = parser.parse_args().rows
    before, best = rows(BOUNDS, "instance | bound before"), best_known_s()
    lines = [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
    for name in ALL:
        kept = [before[name][column] for column in ("bound before", "closer bound", "s")] if name in before else []
        quick, closer, seconds = measured(name) if name in asked else kept
        over = [f"{best[name] / float(bound) - 1:.0%}" for bound in (quick, closer)]
        lines.append(f"| {' | '.join([name, quick, closer, f'{best[name]:.2f}', *over, seconds])} |")
        print(lines[-1], flush=True)
    BOUNDS.write_text(with_table(BOUNDS.read_text(encoding="utf-8"), "instance | bound before", lines), "utf-8")


if __name__ == "__main__":
    main()
