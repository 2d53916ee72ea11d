"""Torture the agreement on views: the counts of results/agreement.md.

    python -m benchmarks.agreement [--seeds 100000]

Each seed is a network of two to seven nodes with faults at random moments (tests/survival/faults.py),
and then a calm in which all that can get well must. Seeds that the results file has of the same protocol are not run
again, but added up; it is written every 5,000, so a call that was cut short goes on where it was.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import time
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from benchmarks.kept import digest_of
from benchmarks.whole_runs import hardware
from skippipe import survival
from tests.survival.faults import Torture
from tests.survival.process import ViolationError

RESULTS = Path("benchmarks/results/agreement.md")
AT_ONCE = 5_000
"""Seeds until the results file is written again."""
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


def earlier(path: Path, protocol: str) -> tuple[list[str], Counter[str]]:
    """The runs that a results file names, and the counts of all of them; nothing if they are of another protocol."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    runs = [line for line in lines if line.startswith("- seeds ")]
    if not all(f"protocol {protocol}," in line for line in runs):
        return [], Counter()
    names = {name: count for count, name in COLUMNS.items()}
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    return runs, Counter({names[row[0]]: int(row[1].replace(",", "")) for row in rows if row[0] in names})


def write(path: Path, runs: list[str], total: Counter[str]) -> None:
    """Write the results file."""
    rows = [f"| {name} | {total[count]:,} |" for count, name in COLUMNS.items()]
    head = ["# Torture of the agreement on views", "", f"`python -m benchmarks.agreement --seeds {total['seeds']}`", ""]
    table = ["", "| what happened, in all of these | times |", "| --- | --- |", *rows]
    path.write_text("\n".join([*head, *runs, *table]) + "\n", encoding="utf-8")


def main() -> None:
    """Run the seeds and write down what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100_000, help="how many, from 0 on")
    parser.add_argument("--processes", type=int, default=2, help="how many at a time")
    parser.add_argument("--out", type=Path, default=RESULTS, help="results file")
    arguments = parser.parse_args()
    protocol = digest_of(Path(survival.__file__).parent)
    runs, total = earlier(arguments.out, protocol)
    machine = f"{arguments.processes} processes, {hardware()}, Python {platform.python_version()}"
    with multiprocessing.Pool(arguments.processes) as pool:
        for first in tqdm(range(total["seeds"], arguments.seeds, AT_ONCE), unit=f"{AT_ONCE} seeds"):
            seeds, began = range(first, min(first + AT_ONCE, arguments.seeds)), time.monotonic()
            found = sum(pool.imap_unordered(torture, seeds, chunksize=20), Counter[str]())
            took = f"{time.strftime('%Y-%m-%d')}, {machine}, {time.monotonic() - began:.0f} s"
            counted = f"{found['violations']} violations"
            runs.append(f"- seeds {seeds[0]:,} to {seeds[-1]:,}, protocol {protocol}, {took}: {counted}")
            total += found
            write(arguments.out, runs, total)
    print(f"{total['seeds']:,} seeds: {total['violations']} violations")


if __name__ == "__main__":
    main()
