"""Random deaths in the main job: how soon they are noticed, what the step costs, and whether the training stays exact.

    python benchmarks/survival.py [--deaths 20] [--setting ca-partial] [--out benchmarks/results/survival.md]

A run of six iterations a death: a node drawn at random is killed (SIGKILL) at a moment drawn at random from three of
them. Losses and every weight are compared with those of one process that nobody disturbs (reference.py).
"""

from __future__ import annotations

import argparse
import datetime
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

import torch
import whole_runs

from skippipe.cli.prepare import DEFAULT_CONFIG
from skippipe.config import RunConfig
from skippipe.data.batches import prepare
from skippipe.fields import load_config
from skippipe.model.checkpoint import find_latest, load_stages
from skippipe.model.stage import canonical_state
from skippipe.reference import ReferenceTrainer
from skippipe.report.metrics import read_metrics
from skippipe.report.run_folder import log_file, process_ids
from skippipe.schedule import Plan, Schedule

NODES, ITERATIONS = 20, 6
MOMENTS = 2.5
"""Steps among which the moment is drawn; they begin when the second iteration has ended."""
HEADER = (
    "| node | iteration | noticed, s | agreed, s | step | following | loss differs by | weights differ by | replicas |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
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
    weight_difference: float
    """Largest difference of a weight over the largest of its tensor."""
    replicas_equal: bool

    def row(self) -> str:
        """As a line of the table."""
        return (
            f"| {self.node} | {self.iteration} | {self.noticed_s:.3f} | {self.agreed_s:.3f} | {self.step:.2f}"
            f" | {self.following:.2f} | {self.loss_difference:.1e} | {self.weight_difference:.1e}"
            f" | {'equal' if self.replicas_equal else 'DIFFER'} |"
        )


class Undisturbed:
    """The same training in one process."""

    def __init__(self, config: RunConfig, plan: Plan, samples: int) -> None:
        torch.set_num_threads(1)
        trainer = ReferenceTrainer(config, plan, samples, prepare(config.data))
        self.losses = [trainer.train_iteration(iteration) for iteration in range(ITERATIONS)]
        self.weights = [canonical_state(stage) for stage in trainer.stages]

    def loss_difference(self, folder: Path) -> float:
        """Of a run."""
        losses = [line.loss for line in read_metrics(folder)]
        return max(abs(loss - own) / own for loss, own in zip(losses, self.losses, strict=True))

    def weight_difference(self, folder: Path) -> float:
        """Of a run's last checkpoint."""
        return max(
            float((trained[name] - tensor).abs().max() / tensor.abs().max())
            for trained, own in zip(map(canonical_state, load_stages(find_latest(folder))), self.weights, strict=True)
            for name, tensor in own.items()
        )


def moments(folder: Path, text: str) -> list[float]:
    """When the nodes' logs say something, in seconds of the epoch."""
    found = []
    for node in range(NODES):
        for line in log_file(folder, node).read_text().splitlines():
            if text in line:
                found.append(datetime.datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp())
    return found


def replicas_equal(folder: Path, plan: Plan, lost: int) -> bool:
    """Whether all living replicas of each stage ended with the same weights."""
    digests = {}
    for node in set(range(NODES)) - {lost}:
        match = re.search(r"weights (\w+)", log_file(folder, node).read_text())
        digests[node] = match[1] if match else f"none of node {node}"
    return all(len({digests[node] for node in stage if node != lost}) == 1 for stage in plan.stages)


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
    differences = f"{undisturbed.loss_difference(folder):.1e} | {undisturbed.weight_difference(folder):.1e}"
    equal = "equal" if replicas_equal(folder, plan, NODES) else "DIFFER"
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
    assert match is not None, said
    iteration = int(match[1])
    steps = [line.step_s for line in read_metrics(folder)]
    return Death(
        node,
        iteration,
        min(moments(folder, f"node {node} has ended")) - killed,
        max(moments(folder, "view 1: lost")) - killed,
        steps[iteration] / plan.expected_step_s,
        statistics.median(steps[iteration + 1 :]) / plan.expected_step_s,
        undisturbed.loss_difference(folder),
        undisturbed.weight_difference(folder),
        replicas_equal(folder, plan, node),
    )


def summary(deaths: list[Death]) -> list[str]:
    """Sentences on all of them."""
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
        f" weights by {max(death.weight_difference for death in deaths):.1e} of the largest of their tensor; {equal} of"
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
    undisturbed = Undisturbed(config, plan, schedule.pipeline.samples_per_microbatch)
    command = (
        f"python benchmarks/survival.py --deaths {options.deaths} --setting {options.setting} --seed {options.seed}"
    )
    head = [*whole_runs.header("A node dies at a random moment of the main job", command), *HEADER]
    chance, deaths, runs = random.Random(options.seed), [], Path(tempfile.mkdtemp())
    rows = [without_death(options.setting, plan, runs, undisturbed)]
    print(rows[0], flush=True)
    for _ in range(options.deaths):
        deaths.append(one_death(options.setting, plan, chance, runs, undisturbed))
        rows.append(deaths[-1].row())
        print(rows[-1], flush=True)
        options.out.write_text("\n".join([*head, *rows, *summary(deaths)]) + "\n", encoding="utf-8")
    shutil.rmtree(runs)


if __name__ == "__main__":
    main()
