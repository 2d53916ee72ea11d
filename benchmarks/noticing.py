"""Nodes fall silent without ending: how soon the others miss them and go on, on the main job in emulated time.

    python -m benchmarks.noticing [--runs 10]               # as root, with iproute2: the cables are of namespaces
    python -m benchmarks.noticing --how STOP --nodes 6      # of the tests' small job, nodes that are stopped alone

A node drawn at random is stopped (SIGSTOP), or the cable between two halves that are network namespaces is cut, so that
the larger half still holds every stage: its interface goes down, or a switch in between, which no interface tells. The
moment is drawn from one step. What is measured is kept beside the results file, so a call that was cut short goes on
where it was.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import signal
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

from tqdm import tqdm

from benchmarks import whole_runs
from benchmarks.jobs import MAIN_NODES, SMALL_NODES, job_of
from benchmarks.kept import FAILED, Kept
from benchmarks.shaped_links import NEEDS, can_make_namespaces
from benchmarks.silences import ITERATIONS, SILENCE_S, How, Silence, Silences

HEADER = (
    "| how | nodes | after, steps | gone on in | way | noticed, s | agreed, s | step | ended, s | left out too |",
    "|---" * 10 + "|",
)


def key_of(how: How, number: int) -> str:
    """Under which an outcome is kept."""
    return f"{how.name} {number}"


def report(head: list[str], kept: Kept, ways: list[How], runs: int) -> list[str]:
    """The results file, of what is kept so far."""
    lines, sums = [*head, *HEADER], []
    for how in ways:
        keys = [key for number in range(runs) if (key := key_of(how, number)) in kept.outcomes]
        found = {key: kept.outcomes[key] for key in keys}
        silences = [Silence(**outcome) for outcome in found.values() if FAILED not in outcome]
        failed = {key: outcome[FAILED] for key, outcome in found.items() if FAILED in outcome}
        lines += [silence.row() for silence in silences]
        lines += [f"| {key} failed: {why} |{' |' * 9}" for key, why in failed.items()]
        sums.append(summary(how, silences, len(failed)))
    return [*lines, "", *sums]


def summary(how: How, silences: list[Silence], failed: int) -> str:
    """A sentence on one way to fall silent."""
    if not silences:
        return f"- {how.value}: {failed} runs failed."
    noticed, agreed = ([getattr(silence, name) for silence in silences] for name in ("noticed_s", "agreed_s"))
    met = "met" if statistics.median(noticed) <= SILENCE_S else "**not met**"
    beside = sum(bool(silence.beside) for silence in silences)
    return (
        f"- {how.value}: {len(silences) + failed} runs, {failed} failed. Noticed after"
        f" {statistics.median(noticed):.2f} s (median; at most {max(noticed):.2f} s; asked: {SILENCE_S:g} s, {met}),"
        f" gone on without after {statistics.median(agreed):.2f} s (at most {max(agreed):.2f} s). Others were left out"
        f" too in {beside} of them."
    )


def main() -> int:
    """Stop and cut, and write the table row by row; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, choices=(MAIN_NODES, SMALL_NODES), default=MAIN_NODES)
    parser.add_argument("--runs", type=int, default=10, help="in each way")
    parser.add_argument("--how", nargs="+", choices=[how.name for how in How], default=[how.name for how in How])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/noticing.md"))
    options = parser.parse_args()
    ways = [How[name] for name in options.how]
    if set(ways) != {How.STOP} and not can_make_namespaces():
        print(f"error: {NEEDS}, or give --how STOP", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    command = f"python -m benchmarks.noticing --nodes {options.nodes} --seed {options.seed}"
    kept, place = Kept(options.out.with_suffix(".jsonl"), command), Path(tempfile.mkdtemp())
    silences = Silences(job_of(options.nodes, place), place / "runs", options.seed)
    head = whole_runs.header("Nodes fall silent", f"{command} --runs {options.runs} --how {' '.join(options.how)}")
    head[2] += f" {options.nodes} nodes, {ITERATIONS} iterations a run, `peers.silence_seconds={SILENCE_S:g}`."
    head[2] += " Seconds are real ones, a step is over the expected one; *ended*: the launcher of the smaller half has."
    try:
        for number, how in tqdm(list(itertools.product(range(options.runs), ways)), unit="run", file=sys.stderr):
            kept.once(key_of(how, number), partial(silences.one, how, number))
            lines = report(head, kept, ways, options.runs)
            options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    finally:
        silences.starter.close()
        shutil.rmtree(place)
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
