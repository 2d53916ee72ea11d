"""Runs of which each loses a node or a stage at a random moment: when it is noticed, what it costs, what is trained."""

from __future__ import annotations

import os
import random
import signal
import statistics
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import whole_runs
from benchmarks.disturbing import DisturbedRun
from benchmarks.exact import Undisturbed, moments, replay_differences, replicas_equal
from benchmarks.jobs import Job
from skippipe.config import RunConfig
from skippipe.fields import load_config
from skippipe.report.metrics import read_metrics
from skippipe.report.views import RunView, read_views
from tests.end_to_end.warm_start import Starter, WarmRun

TOLERANCE = 1e-5
"""Of losses and of tensors as a whole, relative."""
MOST_RUNS = 3
"""Tries of a death, if runs are over before it comes: times of a busy machine, on which nobody measures them."""


@dataclass(frozen=True)
class Death:
    """What one run gave; steps are over the expected one before."""

    nodes: list[int]
    moment: float
    """Expected steps after the end of the first iteration."""
    iteration: int
    """The first that was done without the nodes."""
    way: str
    noticed_s: float
    """Real seconds from the kill until the first of the others had heard of it."""
    agreed_s: float
    """Real seconds from the kill until the last node had the next view."""
    step: float
    following: float | None
    """Median of the steps after it; None if it was the last."""
    loss_difference: float
    """Largest relative difference of a loss."""
    tensor_difference: float
    """Largest length of a tensor's difference over the tensor's."""
    are_equal: bool
    """The replicas that lived, to the bit."""
    is_replayed: bool
    """Whether the differences are from a replay of the run's views, since a stage was lost, or its nodes that were left
    were too far: else from one process that nobody disturbs."""

    @property
    def is_exact(self) -> bool:
        """Whether it trained what it should."""
        return max(self.loss_difference, self.tensor_difference) <= TOLERANCE and self.are_equal

    def row(self) -> str:
        """As a line of the table."""
        nodes = ", ".join(map(str, self.nodes))
        when = f"{nodes} | {self.moment:.2f} | {self.iteration} | {self.way}"
        following = "-" if self.following is None else f"{self.following:.2f}"
        times = f"{self.noticed_s:.3f} | {self.agreed_s:.3f} | {self.step:.2f} | {following}"
        differences = f"{self.loss_difference:.1e} | {self.tensor_difference:.1e}"
        equal, exact = "equal" if self.are_equal else "DIFFER", "yes" if self.is_exact else "**NO**"
        return f"| {when} | {times} | {differences} | {equal} | {exact} |"


class Deaths:
    """Runs of a job, each of so many iterations; the moment is drawn from so many expected steps."""

    def __init__(
        self, job: Job, place: Path, iterations: int, steps: float, seed: int, whole_stages: bool = False
    ) -> None:
        """Everything is written into the folder `place`; a death's number and the seed decide who dies and when.

        If `whole_stages` die, all nodes of one do at once, but not of the first.
        """
        self.job, self.place, self.iterations, self.steps, self.seed = job, place, iterations, steps, seed
        self.whole_stages = whole_stages
        config, self.plan = load_config(RunConfig, job.file, ()), job.plan
        self.step_s = self.plan.expected_step_s * config.emulation.time_scale
        self.undisturbed = Undisturbed(config, self.plan, job.samples, iterations)
        self.starter, self.forking = Starter(), threading.Lock()

    def start(self, name: str) -> DisturbedRun:
        """A run; without a node that comes back, the steps after a death are those of the heirs."""
        fields = [f"iterations={self.iterations}", f"name={name}", f"runs={self.place}", "peers.replan_seconds=0"]
        fields += [f"checkpoint_every={self.iterations}", "peers.restart=0"]
        what = ["skippipe", "run", *self.job.arguments, *fields]
        with self.forking:
            process = WarmRun(self.starter, what, {**os.environ, "OMP_NUM_THREADS": "1"})
        return DisturbedRun(process, self.place / name)

    def nobody(self) -> dict[str, Any]:
        """A run in which nobody dies: what rounding alone makes of it."""
        run = self.start("nobody")
        try:
            whole_runs.finish(run.process)
        finally:
            run.kill()
        return {
            "step": statistics.median(line.step_s for line in read_metrics(run.folder)) / self.plan.expected_step_s,
            "loss_difference": self.undisturbed.loss_difference(run.folder),
            "tensor_difference": self.undisturbed.weight_differences(run.folder)[0],
            "are_equal": replicas_equal(run.folder, self.plan),
        }

    def one(self, number: int) -> dict[str, Any]:
        """A run with one death, as Death's fields; RuntimeError, LookupError or UserError says why it is none."""
        chance = random.Random(f"{self.seed}-{number}")
        nodes = self.draw(chance)
        moment = chance.uniform(0.0, self.steps)
        for attempt in range(MOST_RUNS):
            run = self.start(f"death-{number}-{attempt}")
            try:
                run.wait(moment, self.step_s)
                killed = time.time()
                was_there = all([run.signal(node, signal.SIGKILL) for node in nodes])
                whole_runs.finish(run.process)
            finally:
                run.kill()
            if was_there and not self.was_late(run.folder, nodes):
                return {"nodes": list(nodes), "moment": moment, **self.outcome(run.folder, nodes, killed)}
        raise RuntimeError(f"{MOST_RUNS} runs were over before the nodes {nodes} were killed")

    def was_late(self, folder: Path, nodes: tuple[int, ...]) -> bool:
        """Whether a run had done all iterations before nodes were killed, as on a machine that is too busy."""
        lost = self.lost_in(folder, nodes)
        return len(read_metrics(folder)) == self.iterations and (lost is None or lost.iteration >= self.iterations)

    def lost_in(self, folder: Path, nodes: tuple[int, ...]) -> RunView | None:
        """The first view without these nodes."""
        return next((view for view in read_views(folder) if not set(nodes) & set(view.members)), None)

    def draw(self, chance: random.Random) -> tuple[int, ...]:
        """Who dies."""
        if self.whole_stages:
            return chance.choice(self.plan.stages[1:])
        return (chance.randrange(self.job.nodes),)

    def outcome(self, folder: Path, nodes: tuple[int, ...], killed: float) -> dict[str, Any]:
        """What became of a run that has ended."""
        lost = self.lost_in(folder, nodes)
        noticed = [moment for node in nodes for moment in moments(folder, self.job.nodes, f"node {node} has ended")]
        if lost is None or not noticed:
            raise LookupError(f"nobody missed the nodes {nodes}")
        steps = {line.iteration: line.step_s / self.plan.expected_step_s for line in read_metrics(folder)}
        later = [step for iteration, step in steps.items() if iteration > lost.iteration]
        # What is redone may visit other stages than with nobody lost.
        is_replayed = any(view.way == "redo" or not all(view.stages) for view in read_views(folder))
        if is_replayed:
            loss, tensor = replay_differences(folder)
        else:
            loss, tensor = self.undisturbed.loss_difference(folder), self.undisturbed.weight_differences(folder)[0]
        return {
            "iteration": lost.iteration,
            "way": lost.way,
            "noticed_s": min(noticed) - killed,
            "agreed_s": max(moments(folder, self.job.nodes, f"view {lost.number} from")) - killed,
            "step": steps[lost.iteration],
            "following": statistics.median(later) if later else None,
            "loss_difference": loss,
            "tensor_difference": tensor,
            "are_equal": replicas_equal(folder, self.plan, nodes),
            "is_replayed": is_replayed,
        }
