"""Nodes die or stand still, one after the other, and come back: how soon it is noticed, and what it costs the others.

    python -m benchmarks.survival_return [--kills 10] [--stops 10]        # --nodes 6 --kills 1 --stops 1 for a try

One run of the main job; nobody looks for better plans (peers.replan_seconds=0). A node drawn at random is killed
(SIGKILL) or stands still (SIGSTOP) at a random moment; once it is back, and two iterations are done, the next. If that
fails, the next is in another run. What is measured is kept beside the results file, so a call that was cut short goes
on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import whole_runs
from benchmarks.disturbing import DisturbedRun
from benchmarks.jobs import MAIN_NODES, SMALL_NODES, Job, job_of
from benchmarks.kept import FAILED, Kept
from benchmarks.returning import Blow, Return, return_of, undisturbed_step, views_of_blow
from skippipe.config import RunConfig
from skippipe.errors import UserError
from skippipe.fields import load_config
from skippipe.report.metrics import read_metrics
from skippipe.report.views import RunView, read_views

OFTEN = 1_000_000
PATIENCE_S = 180.0
"""Most real time that a node takes to come back, or an iteration to end."""
TICK_S = 0.05
QUIET_ITERATIONS = 3
"""After a node is back, before the next is struck: the one that it is back in counts."""


class Struck:
    """A run whose nodes are struck."""

    def __init__(self, job: Job, folder: Path) -> None:
        """Started in a folder."""
        self.job = job
        fields = [f"iterations={OFTEN}", f"runs={folder.parent}", f"name={folder.name}", "checkpoint_every=null"]
        fields += [f"peers.restart={OFTEN}", "peers.replan_seconds=0", "peers.silence_seconds=6"]
        command = [sys.executable, "-m", "skippipe", "run", *job.arguments, *fields]
        self.step_s = job.plan.expected_step_s * load_config(RunConfig, job.file, ()).emulation.time_scale
        self.run = DisturbedRun.start(command, folder)
        self.is_quiet = False
        """Whether a node may be struck."""

    def wait(self, is_so: Callable[[], bool]) -> None:
        """Until something is so; RuntimeError if it is not in time, or the run ends."""
        deadline = time.monotonic() + PATIENCE_S
        while not is_so():
            if self.run.process.poll() is not None:
                raise RuntimeError(f"the run has ended: {self.run.last_words()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"waited for {PATIENCE_S:g} s in vain")
            time.sleep(TICK_S)
            self.run.look()

    def views(self) -> list[RunView]:
        """So far; none while a line is being written."""
        try:
            return read_views(self.run.folder)
        except UserError:
            return []

    def strike(self, by: signal.Signals, chance: random.Random) -> dict[str, Any]:
        """Strike a node that is drawn, wait until it is back and all is quiet again, and say what became of it."""
        if not self.is_quiet:
            self.wait(lambda: self.run.has_begun(self.job.nodes))
            self.wait(lambda: self.run.newest >= QUIET_ITERATIONS)
        self.is_quiet = False
        time.sleep(chance.uniform(0.0, self.step_s))
        self.wait(lambda: bool(self.views()))
        blow = Blow(chance.randrange(self.job.nodes), by, time.time(), self.views()[-1].number)
        if not self.run.signal(blow.node, by):
            raise RuntimeError(f"node {blow.node} has no process")
        self.wait(lambda: self.back_in(blow) is not None)
        back_in = self.back_in(blow)
        assert back_in is not None
        self.wait(lambda: self.run.newest >= back_in + QUIET_ITERATIONS - 1)
        found = return_of(self.run.folder, blow, self.job.nodes)
        self.is_quiet = True
        quiet = undisturbed_step(self.views(), read_metrics(self.run.folder), self.job.nodes)
        return {**dataclasses.asdict(found), "quiet": quiet}

    def back_in(self, blow: Blow) -> int | None:
        """The iteration that a node is back in, once it is."""
        try:
            return views_of_blow(blow, self.views())[1].iteration
        except LookupError:
            return None


class Runs:
    """As many runs as it takes: another one after a failure."""

    def __init__(self, job: Job, place: Path) -> None:
        """In the folder `place`."""
        self.job, self.place, self.count = job, place, 0
        self.struck: Struck | None = None

    def strike(self, by: signal.Signals, chance: random.Random) -> dict[str, Any]:
        """Strike a node, of the run that is there or of a new one."""
        if self.struck is None:
            self.struck, self.count = Struck(self.job, self.place / f"run-{self.count}"), self.count + 1
        try:
            return self.struck.strike(by, chance)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """End the run, if there is one."""
        if self.struck is not None:
            self.struck.run.kill()
            self.struck = None


def summary(found: list[Return], quiet: float) -> list[str]:
    """Sentences on kills and on stops."""
    lines = []
    for by in sorted({one.by for one in found}):
        own = [one for one in found if one.by == by]
        noticed, step, back = ([getattr(one, name) for one in own] for name in ("noticed_s", "step", "return_step"))
        useful = sum(one.useful_after <= 1 for one in own)
        lines += [
            "",
            f"{len(own)} times {by}: noticed after {statistics.median(noticed):.3f} s real (median; at most"
            f" {max(noticed):.3f}). The step took {statistics.median(step):.2f} of the expected (median; at most"
            f" {max(step):.2f}); {useful} were useful within an iteration after their state was there. The step of"
            f" the return took {statistics.median(back):.3f} of the expected (median; at most {max(back):.3f}), an"
            f" undisturbed one of the same run {quiet:.3f}: the others were slowed by"
            f" {statistics.median(back) / quiet - 1:.1%} (at most {max(back) / quiet - 1:.1%}).",
        ]
    return lines


def report(kept: Kept, nodes: int, command: str) -> list[str]:
    """The results file, of what is kept so far."""
    found, rows, quiet = [], [], []
    for key, outcome in kept.outcomes.items():
        if FAILED in outcome:
            rows.append(f"| {key} failed: {outcome[FAILED]} |{' |' * 8}")
            continue
        quiet.append(outcome["quiet"])
        found.append(Return(**{name: value for name, value in outcome.items() if name != "quiet"}))
        rows.append(found[-1].row())
    return [
        *whole_runs.header("Nodes are struck and come back", command),
        f"{nodes} nodes. *noticed*: until the first node knew; *agreed*: until the last one had the next view; *state*:"
        " until another process of the node had its stage's state; all in real seconds from the signal. Steps are"
        " over those that their views expect: of the iteration in which it was struck, and of the one that it was back"
        " in, at whose beginning it got its state; *useful after*: iterations from there on in which it did nothing.",
        "",
        "| node | by | noticed, s | agreed, s | state, s | step | back in | useful after | step of the return |",
        "|---" * 9 + "|",
        *rows,
        *summary(found, statistics.median(quiet) if quiet else 1.0),
    ]


def main() -> None:
    """Strike, and write what became of it row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--stops", type=int, default=10)
    nodes = (MAIN_NODES, SMALL_NODES)
    parser.add_argument("--nodes", type=int, choices=nodes, default=MAIN_NODES, help="6: the tests' job")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/survival_return.md"), help="results file")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp())
    runs = Runs(job_of(options.nodes, place), place)
    command = f"python -m benchmarks.survival_return --nodes {options.nodes} --seed {options.seed}"
    kept = Kept(options.out.with_suffix(".jsonl"), command)
    sizes = f" --kills {options.kills} --stops {options.stops}"
    blows = [*((signal.SIGKILL, number) for number in range(options.kills))]
    blows += [(signal.SIGSTOP, number) for number in range(options.stops)]
    try:
        for by, number in tqdm(blows, unit="blow", file=sys.stderr):
            key = f"{by.name} {number}"
            kept.once(key, partial(runs.strike, by, random.Random(f"{options.seed}-{key}")))
            lines = report(kept, options.nodes, command + sizes)
            options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    finally:
        runs.end()
    print("\n".join(lines))
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
