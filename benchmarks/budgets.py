"""Whether more time never hurts: ca-partial and joint over the budget of their search, for results/budgets.md.

    python benchmarks/budgets.py [--instances NAME ..] [--budgets 5 15 60 240] [--seeds 5] [--out FILE]

Every row is written as soon as it is there, so that an interrupted run keeps what it measured; rows of instances that
are not asked for stay.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
from dataclasses import replace
from pathlib import Path

from instances import DEFAULTS, GIVEN, config_of, instance_of
from whole_runs import hardware

from skippipe.search.driver import search
from skippipe.search.progress import Progress
from skippipe.search.warm_up import warm_up

NAMES = (GIVEN, DEFAULTS, "42-nodes")
MOST_ABOVE = 1.01
"""What a median may be over the one of the budget before, which its spread explains."""
HEADER = """# More time never hurts

`python benchmarks/budgets.py{arguments}`, {date}, {machine}, all cores for each search. A search a row
and seed: the stages, ca-partial, then joint from it, all in the budget. Seconds; medians of {seeds} seeds, in brackets
the least and the largest.

| instance | budget, s | ca-partial, iteration | joint, step | above the budget before |
|---|---|---|---|---|
"""


def one_search(name: str, seed: int, budget_s: float) -> tuple[float, float]:
    """ca-partial's iteration and joint's step in seconds."""
    config = replace(config_of(name, seed), settings=("ca-partial", "joint"), time_budget_s=budget_s)
    schedule = search(instance_of(name, config), config, Progress())
    return schedule.plan("ca-partial").expected_iteration_s, schedule.plan("joint").expected_step_s


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def rows_of_others(file: Path, instances: list[str]) -> str:
    """Rows of an earlier run whose instances are not measured now."""
    kept = tuple(f"| {name} |" for name in NAMES if name not in instances)
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return "".join(f"{line}\n" for line in lines if line.startswith(kept))


def main() -> None:
    """Measure, and write the table row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--budgets", type=float, nargs="+", default=[5.0, 15.0, 60.0, 240.0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/budgets.md"))
    options = parser.parse_args()
    warm_up(config_of(GIVEN, 0))
    given = f" --budgets {' '.join(f'{budget:g}' for budget in options.budgets)} --seeds {options.seeds}"
    named = {"date": datetime.date.today(), "machine": hardware(), "seeds": options.seeds}
    header = HEADER.format(arguments=given, **named)
    options.out.write_text(header + rows_of_others(options.out, options.instances), encoding="utf-8")
    for name in options.instances:
        before: list[float] = []
        for budget_s in options.budgets:
            found = [one_search(name, seed, budget_s) for seed in range(options.seeds)]
            medians = [statistics.median(values) for values in zip(*found, strict=True)]
            above = [median / earlier for median, earlier in zip(medians, before, strict=False)]
            said = "yes" if any(ratio > MOST_ABOVE for ratio in above) else "no" if above else ""
            cells = " | ".join(spread(list(values)) for values in zip(*found, strict=True))
            row = f"| {name} | {budget_s:g} | {cells} | {said} |"
            print(row, flush=True)
            with options.out.open("a", encoding="utf-8") as file:
                file.write(row + "\n")
            before = medians


if __name__ == "__main__":
    main()
