"""Random deaths in the main job: how soon they are noticed, what the step costs, and whether the training stays exact.

    python benchmarks/survival.py [--deaths 20] [--setting ca-partial] [--out benchmarks/results/survival.md]

A run of six iterations a death: a node drawn at random is killed (SIGKILL) at a moment drawn at random from three of
them. Losses and every weight are compared with those of one process that nobody disturbs (reference.py).
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import whole_runs
from exact import Undisturbed, moments, replicas_equal

from skippipe.cli.prepare import DEFAULT_CONFIG
from skippipe.config import RunConfig
from skippipe.fields import load_config
from skippipe.report.metrics import read_metrics
from skippipe.report.run_folder import process_ids
from skippipe.schedule import Plan, Schedule

NODES, ITERATIONS = 20, 6
MOMENTS = 2.5
"""Steps among which the moment is drawn; they begin when the second iteration has ended."""
HEADER = (
    "| node | iteration | noticed, s | agreed, s | step | following | loss differs by | tensors | numbers | replicas |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
)


@dataclass(frozen=True)
class Death:
    """What one run gave."""

    node: int
    iteration: int
    noticed_s: float
    """Real seconds from the kill until the first node had heard of it."""
    agreed_s: float
    """Real seconds from the kill until the last node had the next view."""
    step: float
    """Over the expected step before."""
    following: float
    """The same of the median step after."""
    loss_difference: float
    """Largest relative difference of a loss."""
    tensor_difference: float
    """Largest length of a tensor's difference over the tensor's."""
    number_difference: float
    """Largest difference of a weight over the largest of its tensor."""
    replicas_equal: bool

    def row(self) -> str:
        """As a line of the table."""
        return (
            f"| {self.node} | {self.iteration} | {self.noticed_s:.3f} | {self.agreed_s:.3f} | {self.step:.2f}"
            f" | {self.following:.2f} | {self.loss_difference:.1e} | {self.tensor_difference:.1e}"
            f" | {self.number_difference:.1e} | {'equal' if self.replicas_equal else 'DIFFER'} |"
        )


def start(setting: str, runs: Path, name: str) -> tuple[subprocess.Popen[str], Path]:
    """A run and its folder."""
    fields = [f"name={name}", f"runs={runs}", f"iterations={ITERATIONS}", f"checkpoint_every={ITERATIONS}"]
    # Without a node that comes back, the steps after the death are those of the heirs.
    fields += ["peers.restart=0", "peers.replan_seconds=0"]
    return whole_runs.start(["0", str(NODES), setting, "8", *fields]), runs / name


def without_death(setting: str, plan: Plan, runs: Path, undisturbed: Undisturbed) -> str:
    """A run in which nobody dies, as a line of the table: what rounding alone makes of it."""
    process, folder = start(setting, runs, "nobody-dies")
    whole_runs.finish(process)
    step = statistics.median(line.step_s for line in read_metrics(folder)) / plan.expected_step_s
    figures = (undisturbed.loss_difference(folder), *undisturbed.weight_differences(folder))
    differences = " | ".join(f"{figure:.1e}" for figure in figures)
    equal = "equal" if replicas_equal(folder, plan) else "DIFFER"
    return f"| nobody | - | - | - | {step:.2f} | - | {differences} | {equal} |"


def one_death(setting: str, plan: Plan, chance: random.Random, runs: Path, undisturbed: Undisturbed) -> Death:
    """A run with one death."""
    node, name = chance.randrange(NODES), f"death-{chance.getrandbits(32):08x}"
    process, folder = start(setting, runs, name)
    whole_runs.wait_for_iteration(process, folder)
    scale = load_config(RunConfig, DEFAULT_CONFIG, ()).emulation.time_scale
    time.sleep(chance.uniform(0.0, MOMENTS) * plan.expected_step_s * scale)
    killed = time.time()
    os.kill(process_ids(folder)[node], signal.SIGKILL)
    said = whole_runs.finish(process)
    match = re.search(r"lost in iteration (\d+)", said)
    if match is None:
        raise RuntimeError(f"nobody missed node {node}")
    iteration = int(match[1])
    steps = [line.step_s for line in read_metrics(folder)]
    return Death(
        node,
        iteration,
        min(moments(folder, NODES, f"node {node} has ended")) - killed,
        max(moments(folder, NODES, "view 1 from")) - killed,
        steps[iteration] / plan.expected_step_s,
        statistics.median(steps[iteration + 1 :]) / plan.expected_step_s,
        undisturbed.loss_difference(folder),
        *undisturbed.weight_differences(folder),
        replicas_equal(folder, plan, node),
    )


def summary(deaths: list[Death]) -> list[str]:
    """Sentences on all of them."""
    if not deaths:
        return []
    noticed, agreed = [death.noticed_s for death in deaths], [death.agreed_s for death in deaths]
    steps, followings = [death.step for death in deaths], [death.following for death in deaths]
    equal = sum(death.replicas_equal for death in deaths)
    return [
        "",
        f"Of {len(deaths)} deaths, in real seconds: noticed after {statistics.median(noticed):.3f} s (median; at most"
        f" {max(noticed):.3f} s), agreed on after {statistics.median(agreed):.3f} s (at most {max(agreed):.3f} s). The"
        f" step of the death took {statistics.median(steps):.2f} of the expected one (median; mean"
        f" {statistics.mean(steps):.2f}, at most {max(steps):.2f}), those after it {statistics.median(followings):.2f}."
        f" Losses differ from the undisturbed one's by at most {max(death.loss_difference for death in deaths):.1e},"
        f" tensors of weights by {max(death.tensor_difference for death in deaths):.1e} as a whole and by"
        f" {max(death.number_difference for death in deaths):.1e} of their largest number in any; {equal} of"
        f" {len(deaths)} runs ended with all living replicas equal to the bit.",
    ]


def main() -> None:
    """Measure and write the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deaths", type=int, default=20)
    parser.add_argument("--setting", default="ca-partial")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/survival.md"))
    options = parser.parse_args()
    config = load_config(RunConfig, DEFAULT_CONFIG, ())
    schedule = Schedule.load(config.schedule)
    plan = schedule.plan(options.setting)
    undisturbed = Undisturbed(config, plan, schedule.pipeline.samples_per_microbatch, ITERATIONS)
    command = (
        f"python benchmarks/survival.py --deaths {options.deaths} --setting {options.setting} --seed {options.seed}"
    )
    head = [*whole_runs.header("A node dies at a random moment of the main job", command), *HEADER]
    chance, deaths, runs = random.Random(options.seed), [], Path(tempfile.mkdtemp())
    rows = [without_death(options.setting, plan, runs, undisturbed)]
    print(rows[0], flush=True)
    for _ in range(options.deaths):
        try:
            deaths.append(one_death(options.setting, plan, chance, runs, undisturbed))
            rows.append(deaths[-1].row())
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            rows.append(f"| failed: {str(error).strip().splitlines()[-1]} |{' |' * 9}")
        print(rows[-1], flush=True)
        options.out.write_text("\n".join([*head, *rows, *summary(deaths)]) + "\n", encoding="utf-8")
    shutil.rmtree(runs)


if __name__ == "__main__":
    main()
