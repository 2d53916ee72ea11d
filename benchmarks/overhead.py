"""What the runtime costs in real time: six nodes on two cores against one process that trains the same on both.

    python benchmarks/overhead.py [--jobs large small] [--turns 3]          # eleven minutes; small alone takes two

Nodes and the one process (skippipe/reference.py, two threads) take turns in fresh processes that share the same two
cores. A step is the median time from the begin of an iteration to that of the next, whatever lies between; the first is
left out. Both must have the same losses.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
import whole_runs
from six_nodes import NODES, SAMPLES, SETTING, STAGES, Job

from skippipe.cli.prepare import config_from_arguments
from skippipe.config import RunConfig
from skippipe.data.batches import prepare
from skippipe.model.stage import Stage
from skippipe.reference import ReferenceTrainer
from skippipe.report.metrics import read_metrics
from skippipe.report.run_folder import process_ids
from skippipe.report.timeline import read_spans
from skippipe.runtime.task_profiler import TaskSeconds, measure_tasks

Result = TypeVar("Result")
CORES = 2
SAME_LOSS = 1e-4
"""Largest relative difference of a loss."""
TICKS = os.sysconf("SC_CLK_TCK")
JOBS = {"large": Job(512, 8, 256, 2048, iterations=5), "small": Job(128, 4, 128, 512, iterations=40)}
"""Tasks of the small one take about 20 ms."""
REACH = {"large": 1.03, "small": 1.10}
"""Most that the nodes may take over what one process takes."""


class Trained(NamedTuple):
    """A turn of the nodes or of the one process."""

    step_s: float
    losses: list[float]
    busy: float
    """Part of the cores' time in which the nodes' processes ran, after the first iteration; of one process nan."""


def alone(job: Job) -> TaskSeconds:
    """Seconds of a node's tasks if it has a core for itself (in a process of its own)."""
    torch.set_num_threads(1)
    model = config_from_arguments(job.fields).model
    return measure_tasks(lambda number: Stage(model, number, job.vocabulary, 0), SAMPLES)


def one_process(job: Job) -> Trained:
    """Train in one process with a thread a core (in a process of its own)."""
    torch.set_num_threads(CORES)
    config: RunConfig = config_from_arguments(job.fields)
    trainer = ReferenceTrainer(config, job.schedule().plan(SETTING), SAMPLES, prepare(config.data))
    begins, losses = [], []
    for iteration in range(job.iterations):
        begins.append(time.monotonic())
        losses.append(trainer.train_iteration(iteration))
    begins.append(time.monotonic())
    return Trained(median_step(begins), losses, float("nan"))


def nodes(job: Job, place: Path) -> Trained:
    """Train on six nodes; RuntimeError if the run fails."""
    job.schedule().save(place / "schedule.json")
    own = [f"schedule={place}/schedule.json", f"runs={place}", "name=run", *job.fields]
    before = children_s()
    process = whole_runs.start(["0", str(NODES), SETTING, str(SAMPLES), *own])
    try:
        whole_runs.wait_for_iteration(process, place / "run")
        began, started_s = time.monotonic(), launched_s(process, place / "run")
        whole_runs.finish(process)
    finally:
        process.kill()
        process.wait()
    busy = (children_s() - before - started_s) / (time.monotonic() - began) / CORES
    spans = read_spans(place / "run")
    begins = [min(span.start_s for span in spans[iteration]) for iteration in range(job.iterations)]
    return Trained(median_step(begins), [line.loss for line in read_metrics(place / "run")], busy)


def median_step(begins: list[float]) -> float:
    """Median seconds from one iteration's begin to the next, without the first iteration."""
    return statistics.median(later - earlier for earlier, later in itertools.pairwise(begins[1:]))


def children_s() -> float:
    """Processor seconds of all children of this process that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def launched_s(process: subprocess.Popen[str], folder: Path) -> float:
    """Processor seconds that a launcher, its ended children and its nodes have taken so far."""
    total = 0.0
    for pid in (process.pid, *process_ids(folder).values()):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # man 5 proc: utime and stime, and those of children that were waited for.
        total += sum(map(int, fields[11:15])) / TICKS
    return total


def fresh(function: Callable[[Job], Result], job: Job) -> Result:
    """What a function returns in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, job).result()


def row(name: str, turns: int) -> str:
    """A job's row of the table."""
    job, found = JOBS[name], []
    tasks = fresh(alone, job)
    for _ in range(turns):
        with tempfile.TemporaryDirectory() as place:
            found.append((nodes(job, Path(place)), fresh(one_process, job)))
        run, reference = found[-1]
        print(f"{name}: nodes {run.step_s:.3f} s, one process {reference.step_s:.3f} s", file=sys.stderr, flush=True)
        off = max(abs(a / b - 1) for a, b in zip(run.losses, reference.losses, strict=True))
        if off > SAME_LOSS:
            raise RuntimeError(f"losses differ by {off:.1e} of their size")
    ratios = sorted(run.step_s / reference.step_s for run, reference in found)
    ratio, busy = statistics.median(ratios), statistics.median(run.busy for run, _ in found)
    times = [statistics.median(turn[side].step_s for turn in found) for side in (0, 1)]
    cells = [
        f"{name}: width {job.d_model}, context {job.context}",
        f"{1000 * tasks.forward_s:.1f}, {1000 * tasks.loss_s:.1f}, {1000 * tasks.backward_s:.1f}",
        *(f"{seconds:.3f}" for seconds in times),
        f"{ratio:.3f} ({', '.join(f'{each:.3f}' for each in ratios)})",
        f"{REACH[name]:.2f}",
        "yes" if ratio <= REACH[name] else "**NO**",
        f"{busy:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure the jobs, and write a table with a row for each, failed ones too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/overhead.md"), help="results file")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    command = f"python benchmarks/overhead.py --jobs {' '.join(options.jobs)} --turns {options.turns}"
    lines = [
        *whole_runs.header("What the runtime costs in real time", command),
        f"Nothing is emulated. {NODES} nodes with a thread each, {len(STAGES)} stages,"
        f" {JOBS['large'].microbatches} microbatches of {SAMPLES} samples that visit two stages, against"
        f" skippipe/reference.py with {CORES} threads; {CORES} cores;"
        " medians of all turns, ratios taken within a turn. Tasks: median milliseconds of forward, loss and backward of"
        " a node that has a core for itself. Busy: part of the cores' time in which the nodes' processes ran.",
        "",
        "| job | tasks ms | step of the nodes s | of one process s | ratio: median (all) | reach | met | busy |",
        "|---" * 8 + "|",
    ]
    for name in options.jobs:
        try:
            lines.append(row(name, options.turns))
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            lines.append(f"| {name} | failed: {' '.join(str(error).split())[-300:]} | | | | | | |")
        print(lines[-1], flush=True)
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
