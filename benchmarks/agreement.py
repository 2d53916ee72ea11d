"""Torture the agreement on views: the counts of results/agreement.md.

    python -m benchmarks.agreement [--first SEED] [--seeds 8000]

Each seed is a network of two to seven nodes with faults at random moments (tests/survival/faults.py),
and then a calm in which all that can get well must. What the results file holds of other seeds is kept and added up.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import time
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from benchmarks.whole_runs import hardware
from tests.survival.faults import Torture
from tests.survival.simulation import ViolationError

RESULTS = Path("benchmarks/results/agreement.md")
COLUMNS = {
    "violations": "violations",
    "seeds": "seeds",
    "had to end well": "seeds that had to end well",
    "adopted": "views begun by a node",
    "killed": "killed",
    "started again": "started again, or later than the others",
    "stop": "stopped",
    "part": "network cut in two",
    "suspect_somebody": "wrongly suspected",
    "usurp": "all of lower number suspected at once",
    "want_change": "changes wanted",
    "excluded": "left out and told",
    "joined again": "of these, joined again as the same process",
    "no majority": "no majority",
    "sent": "messages",
    "lost": "messages lost",
    "repeated": "messages repeated",
    "late": "messages late",
    "not delivered": "messages to the dead or cut off",
}
"""Rows of the table: a count of a world's, and what it is called."""


def torture(seed: int) -> Counter[str]:
    """What happened in a seed's world; a violation is shown."""
    world = Torture(seed)
    try:
        world.run()
    except ViolationError as error:
        world.counts["violations"] += 1
        tqdm.write(f"seed {seed}: {error}")
    world.counts["seeds"] = 1
    return world.counts


def earlier() -> tuple[list[str], Counter[str]]:
    """The runs that the results file names, and the counts of all of them."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    names = {name: count for count, name in COLUMNS.items()}
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    total = Counter({names[cell[0]]: int(cell[1].replace(",", "")) for cell in cells if cell[0] in names})
    return [line for line in lines if line.startswith("- seeds ")], total


def main() -> None:
    """Run the seeds and write down what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=8000, help="how many")
    parser.add_argument("--processes", type=int, default=2, help="how many at a time")
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    found: Counter[str] = Counter()
    began = time.monotonic()
    with multiprocessing.Pool(arguments.processes) as pool:
        for counts in tqdm(pool.imap_unordered(torture, seeds, chunksize=20), total=len(seeds), unit="seed"):
            found += counts
    runs, total = earlier()
    machine = f"{hardware()}, Python {platform.python_version()}"
    took = f"{time.strftime('%Y-%m-%d')}, {arguments.processes} processes, {machine}, {time.monotonic() - began:.0f} s"
    runs.append(f"- seeds {seeds[0]:,} to {seeds[-1]:,}, {took}: {found['violations']} violations")
    total += found
    rows = [f"| {name} | {total[count]:,} |" for count, name in COLUMNS.items()]
    head = ["# Torture of the agreement on views", "", "`python -m benchmarks.agreement --first SEED --seeds N`", ""]
    table = ["", "| what happened, in all of these | times |", "| --- | --- |", *rows]
    RESULTS.write_text("\n".join([*head, *runs, *table]) + "\n")
    print(runs[-1])


if __name__ == "__main__":
    main()
