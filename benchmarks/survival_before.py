"""What it costs to be able to survive: the undisturbed main job, step and memory, against the build before that.

    python -m benchmarks.survival_before [--turns 3] [--iterations 16] [--before COMMIT]

Both builds take turns, this one first. The other one is a git worktree of COMMIT, by default the last one before
skippipe/survival was there. What was built since beside survival is in the difference too. Each run is kept beside the
results file, so a call that was cut short goes on where it was.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from benchmarks import whole_runs
from benchmarks.disturbing import DisturbedRun
from benchmarks.kept import FAILED, Kept
from skippipe.report.metrics import METRICS

ROOT = Path(__file__).resolve().parent.parent
NODES, SETTING, SAMPLES = 20, "ca-partial", 8
SAMPLE_S = 2.9
"""No whole part of a step, so that every moment of one is sampled."""
WARM_UP = 2
"""Iterations that don't count."""
MOST_STEP, MOST_MEGABYTES = 1.01, 20.0


class Measured(NamedTuple):
    """What one run took."""

    step_s: float
    """Median, of the schedule."""
    megabytes: float
    """The most that a node had at any time, mean of all nodes; pages that processes share are divided among them."""


def git(*arguments: str) -> str:
    """What a git command prints; RuntimeError if it fails."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def last_before() -> str:
    """The commit before the first one that touched skippipe/survival."""
    first = git("log", "--reverse", "--format=%H", "--", "skippipe/survival").splitlines()
    if not first:
        raise RuntimeError("git knows nothing of skippipe/survival; name a commit with --before")
    return git("rev-parse", "--short", f"{first[0]}^")


def measure(tree: Path, runs: Path, name: str, iterations: int) -> dict[str, float]:
    """Run the main job with the build of a tree; RuntimeError if it fails."""
    folder = runs / name
    fields = [f"runs={runs}", f"name={name}", f"iterations={iterations}"]
    what = ["-m", "skippipe", "run", "0", str(NODES), SETTING, str(SAMPLES), *fields]
    run = DisturbedRun.start([sys.executable, *what], folder, tree)
    most = [0.0] * NODES
    try:
        while run.process.poll() is None:
            if (folder / METRICS).exists():
                try:
                    most = [max(pair) for pair in zip(most, whole_runs.proportional_megabytes(folder), strict=True)]
                except (OSError, TypeError):
                    # The nodes are ending.
                    break
            time.sleep(SAMPLE_S)
        if run.process.wait(whole_runs.SECONDS):
            raise RuntimeError(run.last_words())
    finally:
        run.kill()
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return Measured(statistics.median(line["step_s"] for line in lines[WARM_UP:]), statistics.fmean(most))._asdict()


def verdict(before: list[Measured], now: list[Measured]) -> str:
    """Both builds compared."""
    step, more = (
        [statistics.median(getattr(one, name) for one in build) for build in (before, now)]
        for name in ("step_s", "megabytes")
    )
    ratio, difference = step[1] / step[0], more[1] - more[0]
    met = "met" if ratio <= MOST_STEP and difference <= MOST_MEGABYTES else "**not met**"
    return (
        f"Medians: a step takes {ratio:.4f} of what it took (asked: at most {MOST_STEP:g}), a node has"
        f" {difference:+.1f} MB (asked: at most +{MOST_MEGABYTES:g}): {met}."
    )


def main() -> None:
    """Let the builds take turns, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=16)
    parser.add_argument("--before", help="a commit")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/survival_before.md"), help="results file")
    options = parser.parse_args()
    commit = options.before or last_before()
    place = Path(tempfile.mkdtemp())
    command = f"python -m benchmarks.survival_before --iterations {options.iterations} --before {commit}"
    kept = Kept(options.out.with_suffix(".jsonl"), command)
    # Those of calls that were cut short are gone with their folders.
    git("worktree", "prune")
    git("worktree", "add", "--detach", str(place / "before"), commit)
    trees = {"now": ROOT, f"before ({commit})": place / "before"}
    try:
        for turn, (name, tree) in tqdm([*itertools.product(range(options.turns), trees.items())], file=sys.stderr):
            folder = f"{name.split()[0]}-{turn}"
            kept.once(f"{name}, turn {turn}", partial(measure, tree, place / "runs", folder, options.iterations))
            lines = report(kept, f"{command} --turns {options.turns}", list(trees))
            options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    finally:
        git("worktree", "remove", "--force", str(place / "before"))
    print("\n".join(lines))
    shutil.rmtree(place)


def report(kept: Kept, command: str, names: list[str]) -> list[str]:
    """The results file, of what is kept so far."""
    lines = whole_runs.header("What it costs to be able to survive", command)
    lines += ["| build | step s, median | most of a node MB, mean of nodes |", "|---|---|---|"]
    found: dict[str, list[Measured]] = {name: [] for name in names}
    for key, outcome in kept.outcomes.items():
        if FAILED in outcome:
            lines.append(f"| {key} | failed: {outcome[FAILED]} | |")
            continue
        found[key.partition(",")[0]].append(Measured(**outcome))
        lines.append(f"| {key} | {outcome['step_s']:.3f} | {outcome['megabytes']:.1f} |")
    return [*lines, "", verdict(*(found[name] for name in reversed(names)))] if all(found.values()) else lines


if __name__ == "__main__":
    main()
