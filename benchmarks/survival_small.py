"""A hundred random deaths in as many runs of six nodes: whether losses and weights are those that nobody disturbs.

    python -m benchmarks.survival_small [--deaths 100] [--out benchmarks/results/survival_small.md]

The tests' small run, five iterations; a node drawn at random is killed (SIGKILL) at a moment drawn at random from three
of them. The yardstick is one process (reference.py).
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from benchmarks import whole_runs
from benchmarks.disturbing import DisturbedRun
from benchmarks.exact import Undisturbed, replicas_equal
from benchmarks.jobs import SMALL_NODES, job_of
from skippipe.config import RunConfig
from skippipe.errors import UserError
from skippipe.fields import load_config
from skippipe.report.views import TAKEOVER, read_views
from tests.end_to_end.warm_start import Starter, WarmRun

ITERATIONS = 5
MOMENTS = 3.0
"""Expected steps among which the moment is drawn; they begin when the first iteration has ended."""
TOLERANCE = 1e-5
TICK_S = 0.005


@dataclass(frozen=True)
class Death:
    """What one run gave."""

    node: int
    moment: float
    """Expected steps after the end of the first iteration."""
    iteration: int
    """The first that was done without the node."""
    way: str
    loss_difference: float
    tensor_difference: float
    """Largest length of a tensor's difference over the tensor's."""
    are_equal: bool
    """The replicas that lived."""

    @property
    def is_exact(self) -> bool:
        """Whether it trained what it should."""
        return max(self.loss_difference, self.tensor_difference) <= TOLERANCE and self.are_equal

    def row(self) -> str:
        """As a line of the table."""
        differences = f"{self.loss_difference:.1e} | {self.tensor_difference:.1e}"
        equal = "equal" if self.are_equal else "DIFFER"
        verdict = "yes" if self.is_exact else "**NO**"
        return (
            f"| {self.node} | {self.moment:.2f} | {self.iteration} | {self.way} | {differences} | {equal} | {verdict} |"
        )


class Deaths:
    """Runs of which each loses a node."""

    def __init__(self, place: Path, seed: int) -> None:
        """Everything is written into the folder `place`."""
        self.place, self.chance = place, random.Random(seed)
        self.job = job_of(SMALL_NODES, place)
        config, self.plan = load_config(RunConfig, self.job.file, ()), self.job.plan
        self.step_s = self.plan.expected_step_s * config.emulation.time_scale
        self.undisturbed = Undisturbed(config, self.plan, self.job.samples, ITERATIONS)
        self.starter = Starter()

    def one(self, number: int) -> Death:
        """A run with one death; RuntimeError or UserError says why it is none."""
        node, moment = self.chance.randrange(SMALL_NODES), self.chance.uniform(0.0, MOMENTS)
        fields = [f"iterations={ITERATIONS}", f"name=death-{number}", f"checkpoint_every={ITERATIONS}"]
        what = ["skippipe", "run", *self.job.arguments, *fields, "peers.restart=0"]
        process = WarmRun(self.starter, what, {**os.environ, "OMP_NUM_THREADS": "1"})
        run = DisturbedRun(process, self.place / "runs" / f"death-{number}")
        try:
            while run.newest < 0 and process.poll() is None:
                run.look()
                time.sleep(TICK_S)
            time.sleep(moment * self.step_s)
            if not run.signal(node, signal.SIGKILL):
                raise RuntimeError(f"node {node} had ended before it was to be killed")
            whole_runs.finish(process)
        finally:
            run.kill()
        return self.outcome(run.folder, node, moment)

    def outcome(self, folder: Path, node: int, moment: float) -> Death:
        """What a run that has ended has trained."""
        views = read_views(folder)
        lost = next((view for view in views if node not in view.members), None)
        if lost is None:
            raise RuntimeError(f"nobody missed node {node}")
        return Death(
            node,
            moment,
            lost.iteration,
            lost.way,
            self.undisturbed.loss_difference(folder),
            self.undisturbed.weight_differences(folder)[0],
            replicas_equal(folder, self.plan, node),
        )


def summary(deaths: list[Death], failed: int) -> str:
    """A sentence on all of them."""
    if not deaths:
        return f"{failed} runs failed."
    loss, tensor = (max(getattr(death, f"{name}_difference") for death in deaths) for name in ("loss", "tensor"))
    taken_over = sum(death.way == TAKEOVER for death in deaths)
    return (
        f"Of {len(deaths) + failed} deaths {sum(death.is_exact for death in deaths)} left the training exact, to"
        f" {TOLERANCE:g} of losses and of each tensor of weights and to the bit among replicas; {taken_over} were taken"
        f" over, {failed} runs failed. Losses differ by at most {loss:.1e}, tensors by {tensor:.1e}."
    )


def main() -> None:
    """Kill, compare, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deaths", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/survival_small.md"), help="results file")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp())
    runs = Deaths(place, options.seed)
    deaths: list[Death] = []
    rows: list[str] = []
    command = f"python -m benchmarks.survival_small --deaths {options.deaths} --seed {options.seed}"
    head = whole_runs.header("A node dies at a random moment of a small run", command)
    head += ["| node | after, steps | lost in | way | losses | tensors | replicas | exact |", "|---" * 8 + "|"]
    for number in tqdm(range(options.deaths), unit="death", file=sys.stderr):
        try:
            deaths.append(runs.one(number))
            rows.append(deaths[-1].row())
        except (RuntimeError, UserError, subprocess.TimeoutExpired) as error:
            rows.append(f"| failed: {str(error).strip().splitlines()[-1]} |{' |' * 7}")
        lines = [*head, *rows, "", summary(deaths, len(rows) - len(deaths))]
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    runs.starter.close()
    print(lines[-1])
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
