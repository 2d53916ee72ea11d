"""Nodes die or stand still, one after the other, and come back: how soon it is noticed, and what it costs the others.

    python -m benchmarks.survival_return [--kills 10] [--stops 10]        # --nodes 6 --kills 1 --stops 1 for a try

One run of the main job; nobody looks for better plans (peers.replan_seconds=0). A node drawn at random is killed
(SIGKILL) or stands still (SIGSTOP) at a random moment; once it is back, and two iterations are done, the next.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from benchmarks import whole_runs
from benchmarks.disturbing import DisturbedRun
from benchmarks.jobs import MAIN_NODES, SMALL_NODES, Job, job_of
from benchmarks.returning import Blow, Return, returns, undisturbed_step, views_of_blow
from skippipe.config import RunConfig
from skippipe.errors import UserError
from skippipe.fields import load_config
from skippipe.report.metrics import read_metrics
from skippipe.report.views import RunView, read_views

OFTEN = 1_000_000
PATIENCE_S = 180.0
"""Most real time that a node takes to come back, or an iteration to end."""
END_S = 60.0
TICK_S = 0.05
QUIET_ITERATIONS = 3
"""After a node is back, before the next is struck: the one that it is back in counts."""


class Struck:
    """A run whose nodes are struck."""

    def __init__(self, job: Job, place: Path, seed: int) -> None:
        """Started in the folder `place`; `seed` is of nodes and moments."""
        self.job, self.chance, self.blows = job, random.Random(seed), list[Blow]()
        fields = [f"iterations={OFTEN}", f"runs={place}", "name=run", "checkpoint_every=null"]
        fields += [f"peers.restart={OFTEN}", "peers.replan_seconds=0", "peers.silence_seconds=6"]
        command = [sys.executable, "-m", "skippipe", "run", *job.arguments, *fields]
        self.step_s = job.plan.expected_step_s * load_config(RunConfig, job.file, ()).emulation.time_scale
        self.run = DisturbedRun.start(command, place / "run")

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

    def strike(self, by: signal.Signals) -> None:
        """Strike a node, and wait until it is back and all is quiet again."""
        time.sleep(self.chance.uniform(0.0, self.step_s))
        self.wait(lambda: bool(self.views()))
        blow = Blow(self.chance.randrange(self.job.nodes), by, time.time(), self.views()[-1].number)
        if not self.run.signal(blow.node, by):
            raise RuntimeError(f"node {blow.node} has no process")
        self.blows.append(blow)
        self.wait(lambda: self.back_in(blow) is not None)
        back_in = self.back_in(blow)
        assert back_in is not None
        self.wait(lambda: self.run.newest >= back_in + QUIET_ITERATIONS - 1)

    def back_in(self, blow: Blow) -> int | None:
        """The iteration that a node is back in, once it is."""
        try:
            return views_of_blow(blow, self.views())[1].iteration
        except LookupError:
            return None

    def measure(self, blows: list[signal.Signals]) -> None:
        """Let all blows come, and end the run."""
        try:
            self.wait(lambda: self.run.has_begun(self.job.nodes))
            self.wait(lambda: self.run.newest >= QUIET_ITERATIONS)
            for by in tqdm(blows, unit="blow", file=sys.stderr):
                self.strike(by)
            self.run.process.terminate()
            self.run.process.wait(END_S)
        finally:
            self.run.kill()


def summary(found: list[Return], quiet: float) -> list[str]:
    """Sentences on kills and on stops."""
    lines = []
    for by in sorted({one.blow.by for one in found}):
        own = [one for one in found if one.blow.by is by]
        noticed, step, back = ([getattr(one, name) for one in own] for name in ("noticed_s", "step", "return_step"))
        useful = sum(one.useful_after <= 1 for one in own)
        lines += [
            "",
            f"{len(own)} times {by.name}: noticed after {statistics.median(noticed):.3f} s real (median; at most"
            f" {max(noticed):.3f}). The step took {statistics.median(step):.2f} of the expected (median; at most"
            f" {max(step):.2f}); {useful} were useful within an iteration after their state was there. The step of"
            f" the return took {statistics.median(back):.3f} of the expected (median; at most {max(back):.3f}), an"
            f" undisturbed one of the same run {quiet:.3f}: the others were slowed by"
            f" {statistics.median(back) / quiet - 1:.1%} (at most {max(back) / quiet - 1:.1%}).",
        ]
    return lines


def report(struck: Struck, command: str) -> list[str]:
    """The results file."""
    folder, nodes = struck.run.folder, struck.job.nodes
    found = returns(folder, struck.blows, nodes)
    quiet = undisturbed_step(struck.views(), read_metrics(folder), nodes)
    rows = [one.row() if isinstance(one, Return) else f"| failed: {one} |{' |' * 8}" for one in found]
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
        *summary([one for one in found if isinstance(one, Return)], quiet),
    ]


def main() -> None:
    """Strike, and write what became of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--stops", type=int, default=10)
    nodes = (MAIN_NODES, SMALL_NODES)
    parser.add_argument("--nodes", type=int, choices=nodes, default=MAIN_NODES, help="6: the tests' job")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/survival_return.md"), help="results file")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp())
    struck = Struck(job_of(options.nodes, place), place, options.seed)
    sizes = f"--kills {options.kills} --stops {options.stops} --nodes {options.nodes} --seed {options.seed}"
    try:
        struck.measure([signal.SIGKILL] * options.kills + [signal.SIGSTOP] * options.stops)
    finally:
        lines = report(struck, f"python -m benchmarks.survival_return {sizes}")
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print("\n".join(lines))
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
