"""Runs in which nodes fall silent without ending: one is stopped, or a cable between two halves is cut."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from benchmarks import whole_runs
from benchmarks.disturbing import DisturbedRun
from benchmarks.exact import moments_of
from benchmarks.jobs import Job
from benchmarks.shaped_links import command, host, namespaces, plug_into_switch
from skippipe.config import RunConfig
from skippipe.fields import load_config
from skippipe.report.metrics import read_metrics
from skippipe.report.views import RunView, read_views
from skippipe.schedule import Plan
from tests.end_to_end.warm_start import Starter, WarmRun

ITERATIONS, STEPS = 4, 1.0
"""Of a run; and expected steps from the end of the first iteration on, in which nodes fall silent."""
SILENCE_S = 6.0
"""After which a peer is taken for lost, three heartbeats."""
PORT, MEGABITS = 4000, 10_000
MISSED, NO_MAJORITY = "can't be reached for", "can be reached, no majority"
SECRET = {"SKIPPIPE_SECRET": "a secret that both halves know"}


class How(Enum):
    """How nodes fall silent; its value is how results call it."""

    STOP = "stopped (SIGSTOP)"
    CABLE = "cable of the larger half pulled"
    SWITCH = "switch between the halves off"
    """Nothing comes any more, and no interface tells."""


@dataclass(frozen=True)
class Silence:
    """What one run gave; seconds are real ones from when the nodes fell silent."""

    how: str
    """Name of a How."""
    first: int
    """Nodes that fell silent: from this one on."""
    last: int
    """To this one."""
    moment: float
    """Expected steps after the end of the first iteration."""
    iteration: int
    """The first that was done without them."""
    way: str
    noticed_s: float
    """Until the first of the others took one of them for lost."""
    agreed_s: float
    """Until the last of the others had a view without them."""
    step: float
    """Of that iteration, over the expected one."""
    ended_s: float | None
    """Until the launcher of the silent had saved and ended; None of a stopped node, which its launcher ends."""
    beside: tuple[int, ...]
    """Others that were left out."""

    def row(self) -> str:
        """As a line of the table."""
        nodes = f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"
        ended = "-" if self.ended_s is None else f"{self.ended_s:.2f}"
        beside = ", ".join(map(str, self.beside)) or "-"
        when = f"{How[self.how].value} | {nodes} | {self.moment:.2f} | {self.iteration} | {self.way}"
        return f"| {when} | {self.noticed_s:.2f} | {self.agreed_s:.2f} | {self.step:.2f} | {ended} | {beside} |"


def smaller_halves(plan: Plan) -> list[range]:
    """Ranges of nodes, from the first or to the last one, without which a majority is left that holds every stage."""
    nodes = len(plan.stage_of())
    ends = itertools.chain.from_iterable((range(size), range(nodes - size, nodes)) for size in range(1, nodes))
    return [end for end in ends if 2 * len(end) < nodes and all(set(stage) - set(end) for stage in plan.stages)]


@contextlib.contextmanager
def halves(names: list[str], switch: str) -> Iterator[None]:
    """Two namespaces, at host(0) and host(1), each with a cable to a switch; gone at the end whatever happens."""
    with namespaces([*names, switch]):
        plug_into_switch(names, switch, [MEGABITS] * len(names))
        yield


class Silences:
    """Runs of a job, whose times are emulated."""

    def __init__(self, job: Job, place: Path, seed: int) -> None:
        """Everything is written into the folder `place`; a run's number and the seed decide who falls silent, when."""
        self.job, self.place, self.seed = job, place, seed
        config = load_config(RunConfig, job.file, ())
        self.plan, self.scale = job.plan, config.emulation.time_scale
        self.starter = Starter()
        self.names = [f"skippipe-{os.getpid()}-{half}" for half in ("larger", "smaller")]
        self.switch = f"skippipe-{os.getpid()}-switch"

    def start(self, name: str, local: range, *fields: str, inside: str | None = None) -> DisturbedRun:
        """The nodes `local` of a run."""
        own = [
            f"iterations={ITERATIONS}",
            f"name={name}",
            f"runs={self.place}",
            f"checkpoint_every={ITERATIONS}",
            *fields,
        ]
        own += ["peers.restart=0", "peers.replan_seconds=0", f"peers.silence_seconds={SILENCE_S:g}"]
        _, _, setting, *rest = self.job.arguments
        what = ["skippipe", "run", str(local.start), str(local.stop), setting, *rest, *own]
        process = WarmRun(self.starter, what, {**os.environ, "OMP_NUM_THREADS": "1", **SECRET}, inside)
        return DisturbedRun(process, self.place / name)

    def one(self, how: How, number: int) -> dict[str, Any]:
        """A run in which nodes fall silent, as Silence's fields; RuntimeError, LookupError or UserError if it fails."""
        chance = random.Random(f"{self.seed}-{how.name}-{number}")
        moment = chance.uniform(0.0, STEPS)
        if how is How.STOP:
            node = chance.randrange(self.job.nodes)
            found = self.stop(f"stop-{number}", node, moment)
            return {"how": how.name, "first": node, "last": node, "moment": moment, **found}
        smaller = chance.choice(smaller_halves(self.plan))
        with halves(self.names, self.switch):
            found = self.cut(how, f"{how.name.lower()}-{number}", smaller, moment)
        return {"how": how.name, "first": smaller.start, "last": smaller.stop - 1, "moment": moment, **found}

    def stop(self, name: str, node: int, moment: float) -> dict[str, Any]:
        """A run of which a node's process stands still for ever."""
        run = self.start(name, range(self.job.nodes))
        try:
            run.wait(moment, self.plan.expected_step_s * self.scale)
            since = time.time()
            if not run.signal(node, signal.SIGSTOP):
                whole_runs.finish(run.process)
                raise RuntimeError(f"node {node} had ended before it was to be stopped")
            whole_runs.finish(run.process)
        finally:
            run.kill()
        return {**self.outcome(run.folder, range(node, node + 1), since), "ended_s": None}

    def cut(self, how: How, name: str, smaller: range, moment: float) -> dict[str, Any]:
        """A run of two halves that lose each other for ever."""
        nodes = self.job.nodes
        larger = range(smaller.stop, nodes) if not smaller.start else range(smaller.start)
        meeting = [f"peers.first_port={PORT}", f'peers.bootstrap=["{host(0)}:{PORT + larger.start}"]']
        runs = [
            self.start(f"{name}-{part}", local, *meeting, f"peers.host={host(place)}", inside=self.names[place])
            for place, (part, local) in enumerate({"larger": larger, "smaller": smaller}.items())
        ]
        try:
            runs[0].wait(moment, self.plan.expected_step_s * self.scale)
            since = time.time()
            space, device = (self.names[0], "uplink") if how is How.CABLE else (self.switch, "switch")
            command("ip", "-n", space, "link", "set", device, "down")
            _, errors = runs[1].process.communicate(timeout=whole_runs.SECONDS)
            ended_s = time.time() - since
            if NO_MAJORITY not in errors:
                raise RuntimeError(f"the smaller half did not miss the others: {errors[-2000:]}")
            whole_runs.finish(runs[0].process)
        finally:
            for run in runs:
                run.kill()
        return {**self.outcome(runs[0].folder, smaller, since), "ended_s": ended_s}

    def outcome(self, folder: Path, silent: range, since: float) -> dict[str, Any]:
        """What became of the others in a run that has ended."""
        others = [node for node in range(self.job.nodes) if node not in silent]
        views = read_views(folder)
        without = next((view for view in views if not set(view.members) & set(silent)), None)
        if without is None:
            raise LookupError(f"nobody missed nodes {silent.start} to {silent.stop - 1}")
        missed = [moment for node in silent for moment in self.said(folder, others, f"node {node} {MISSED}")]
        agreed = self.said(folder, without.members, f"view {without.number} from")
        if not missed or len(agreed) < len(without.members):
            raise LookupError(f"the logs in {folder} don't say who was missed, and when")
        step_s = next(line.step_s for line in read_metrics(folder) if line.iteration == without.iteration)
        return {
            "iteration": without.iteration,
            "way": self.way(views, without),
            "noticed_s": min(missed) - since,
            "agreed_s": max(agreed) - since,
            "step": step_s / self.plan.expected_step_s,
            "beside": sorted(set(others) - set(views[-1].members)),
        }

    def said(self, folder: Path, nodes: Iterable[int], text: str) -> list[float]:
        """When these nodes' logs say something."""
        return [moment for node in nodes for moment in moments_of(folder, node, text)]

    def way(self, views: list[RunView], without: RunView) -> str:
        """How they went on, and in how many views if not in one."""
        return without.way if without.number == 1 else f"{without.way}, view {without.number}"
