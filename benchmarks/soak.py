"""Hundreds of faults of every kind, one after the other, in one run that has to go on and leave nothing behind.

    python -m benchmarks.soak [--faults 500]        # three quarters of an hour; --nodes 6 --faults 14 for a try
    python -m benchmarks.soak --real --pause 20     # an hour without emulation; --nodes 6 --minutes 1 for a try

Found is kept after each fault (--folder): a call that was cut short goes on where it was, from the newest checkpoint.
Three nodes are never killed, so that their memory and descriptors can be watched; an origin is among them, since a run
without any ends. A run that ends all the same is a failure, and another goes on from its newest checkpoint.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from benchmarks import whole_runs
from benchmarks.disturbing import DisturbedRun
from benchmarks.found import Found
from benchmarks.jobs import MAIN_NODES, SETTING, SMALL_NODES, Job, job_of, real_job
from benchmarks.kept import build
from benchmarks.soaked import MOST_GAP_S, Soaked
from benchmarks.soaking import Fault, Planned, planned, planned_for, quarters
from skippipe.errors import UserError
from skippipe.model.checkpoint import find_latest
from skippipe.report.metrics import SUMMARY, read_summary
from tests.end_to_end.conftest import free_ports, ports_are_free

OFTEN = 1_000_000
MOST_GROWTH_MB, MOST_GROWTH_DESCRIPTORS = 10.0, 5.0
FEWEST_SAMPLES = 8


class Runs:
    """What is run, again and again if need be."""

    def __init__(self, job: Job, time_scale: float | None, folder: Path, earlier: Sequence[str] = ()) -> None:
        """Of a job, in a folder, where `earlier` runs are; without a time scale in real time."""
        self.nodes, self.folder, self.port = job.nodes, folder, free_ports(job.nodes)
        fields = [f"iterations={OFTEN}", f"runs={folder}", "checkpoint_every=10"]
        fields += [] if time_scale is None else [f"emulation.time_scale={time_scale}"]
        fields += [f"peers.restart={OFTEN}", f"peers.first_port={self.port}", "peers.silence_seconds=6"]
        self.arguments = [*job.arguments, *fields]
        stages = job.plan.stages
        # Of stage 0, without which there is no run, and of the last two.
        self.spared = frozenset(stage[-1] for stage in (stages[0], *stages[-2:]))
        self.folders = [Path(name) for name in earlier]
        self.is_real = time_scale is None

    def start(self) -> DisturbedRun:
        """Another run, from the newest checkpoint if there is one."""
        resume: list[str] = []
        for before in self.folders:
            try:
                find_latest(before)
            except UserError:
                continue
            resume = ["--resume", str(before)]
        folder = self.folder / f"run-{len(self.folders) + 1}"
        self.folders.append(folder)
        what = ["run", *self.arguments, f"name={folder.name}", *resume]
        return DisturbedRun.start([sys.executable, "-m", "benchmarks.cutting", *what], folder)


def soak(runs: Runs, faults: list[Planned], seed: int, found: Found, keep: Callable[[], None]) -> None:
    """Let those faults come that have not yet, in as many runs as it takes, and add what is found."""
    done = len(found.struck)
    left, chance = faults[done:], random.Random(f"{seed}-{done}")
    with tqdm(total=len(faults), initial=done, unit="fault", file=sys.stderr) as bar:

        def progress() -> None:
            keep()
            bar.update(1)
            bar.set_postfix(runs=len(runs.folders), failed=len(found.failed))

        while not found.is_over:
            Soaked(runs.start(), runs.nodes, runs.spared, chance, found).live(left, progress)
            if not ports_are_free(runs.port, runs.nodes):
                found.failed.append(f"{runs.folders[-1].name}: ports are still taken")
                return
            found.is_over = not left


def check_row(what: str, found: str, asked: str, is_met: bool) -> str:
    """A line of the table of checks."""
    return f"| {what} | {found} | {asked} | {'yes' if is_met else '**NO**'} |"


def checks(found: Found, wanted: int, runs: int) -> list[str]:
    """What was asked, and whether it was so."""
    kinds = Counter(each.fault for each in found.struck)
    longest, over = max(found.gaps, default=0.0), sum(gap > MOST_GAP_S for gap in found.gaps)
    gap = f"{longest:.1f} s; {over} of {len(found.gaps)} over {MOST_GAP_S:g} s"
    least = min(20, wanted // len(Fault))
    calls = "1" if found.calls <= 1 else f"{found.calls}, as it was cut short {found.calls - 1} times"
    return [
        "| what | found | asked | met |",
        "|---|---|---|---|",
        check_row("faults", str(len(found.struck)), str(wanted), len(found.struck) == wanted),
        check_row("proposer killed", str(kinds[Fault.PROPOSER]), f"at least {least}", kinds[Fault.PROPOSER] >= least),
        check_row("between the ends of two iterations, real", gap, f"at most {MOST_GAP_S:g} s", not over),
        check_row("runs that it took", str(runs), calls, runs == max(1, found.calls)),
        check_row("failures, listed below", str(len(found.failed)), "0", not found.failed),
    ]


def kinds(found: Found) -> list[str]:
    """A line for each kind of fault."""
    lines = ["| fault | how often | processes | iteration that it fell into, real s: median | most |"]
    lines.append("|---|---|---|---|---|")
    for fault in Fault:
        own = [each for each in found.struck if each.fault is fault]
        gaps = [each.gap_s for each in own]
        struck = sum(len(each.nodes) for each in own)
        seconds = f"{statistics.median(gaps):.1f} | {max(gaps):.1f}" if gaps else "- | -"
        lines.append(f"| {fault.value} | {len(own)} | {struck} | {seconds} |")
    return lines


def taken(found: Found) -> list[str]:
    """A line for each process that was watched long enough."""
    lines = ["| process | samples | anonymous memory, MB: second quarter | last | descriptors | last | flat |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, samples in found.samples.items():
        if len(samples) >= FEWEST_SAMPLES:
            memory, descriptors = (quarters([sample[place] for sample in samples]) for place in (0, 1))
            is_flat = memory[1] - memory[0] <= MOST_GROWTH_MB
            is_flat = is_flat and descriptors[1] - descriptors[0] <= MOST_GROWTH_DESCRIPTORS
            cells = f"{memory[0]:.1f} | {memory[1]:.1f} | {descriptors[0]:g} | {descriptors[1]:g}"
            lines.append(f"| {name} | {len(samples)} | {cells} | {'yes' if is_flat else '**NO**'} |")
    return lines


def counted(runs: Runs) -> str:
    """What the last run's summary says; it has one if it was ended as it should be."""
    path = runs.folders[-1] / SUMMARY
    if not path.exists():
        return "The last run has left no summary."
    summary = read_summary(runs.folders[-1])
    return (
        f"Of the last run: {summary.iterations} iterations, {summary.views} views, {summary.nodes_lost} nodes lost,"
        f" {summary.nodes_joined} back, {summary.microbatches_taken_over} microbatches taken over,"
        f" {summary.iterations_redone} iterations redone, loss {summary.loss_first:.3f} to {summary.loss_last:.3f}."
    )


def main() -> None:
    """Soak, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=500)
    parser.add_argument("--real", action="store_true", help="nothing emulated, for --minutes instead of --faults")
    parser.add_argument("--minutes", type=float, default=60.0, help="that faults come for in real time")
    parser.add_argument("--pause", type=float, default=5.0, help="mean seconds from fault to fault")
    parser.add_argument(
        "--nodes", type=int, choices=(MAIN_NODES, SMALL_NODES), default=MAIN_NODES, help="6: the tests' job"
    )
    parser.add_argument("--time-scale", type=float, help="default: 0.05 of 20 nodes, 1 of 6")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs/soak"), help="of the runs, and of what is found")
    parser.add_argument("--out", type=Path, help="results file; default: benchmarks/results/soak.md or soak_real.md")
    options = parser.parse_args()
    many = f"--real --minutes {options.minutes:g}" if options.real else f"--faults {options.faults}"
    command = f"python -m benchmarks.soak {many} --pause {options.pause:g} --nodes {options.nodes}"
    scale = None if options.real else options.time_scale or (0.05 if options.nodes == MAIN_NODES else 1.0)
    command += "" if scale is None else f" --time-scale {scale:g}"
    command += f" --seed {options.seed}"
    kept, of = options.folder.absolute() / "found.json", f"{command}, build {build()}"
    kept.parent.mkdir(parents=True, exist_ok=True)
    found = Found.load(kept, of)
    # Runs of other calls have the same names.
    place = kept.parent / f"call-{time.strftime('%d%H%M%S')}"
    place.mkdir()
    print(f"runs are in {place}", file=sys.stderr)
    job = real_job(options.nodes, place) if options.real else job_of(options.nodes, kept.parent)
    runs = Runs(job, scale, place, found.folders)
    if options.real:
        faults = planned_for(60 * options.minutes, options.pause, options.seed)
    else:
        faults = planned(options.faults, options.pause, options.seed)
    out = options.out or Path("benchmarks/results") / ("soak_real.md" if options.real else "soak.md")
    found.calls += 1

    def keep() -> None:
        found.folders = [str(folder) for folder in runs.folders]
        found.save(kept, of)
        write(out, command, len(faults), runs, found)

    try:
        soak(runs, faults, options.seed, found, keep)
    except Exception as error:
        found.failed.append(f"left by {error!r}")
        raise
    finally:
        keep()
        print(out.read_text(encoding="utf-8"))


def ending(found: Found) -> str:
    """The last sentence, before the failures."""
    if found.failed:
        return "What failed:"
    if not found.is_over:
        return "It is not over."
    return (
        "Nothing failed: all nodes were back after the last fault, SIGTERM saved a whole checkpoint and ended all, and"
        " no process or port was left."
    )


def write(out: Path, command: str, wanted: int, runs: Runs, found: Found) -> None:
    """Write the results file, of what is found so far."""
    title = "Soak: faults of every kind, one after the other"
    lines = [
        *whole_runs.header(f"{title}, in real time" if runs.is_real else title, command),
        f"{runs.nodes} nodes, {SETTING}, {found.seconds / 60:.0f} minutes of training. {counted(runs)}",
        "",
        *checks(found, wanted, len(runs.folders)),
        "",
        *kinds(found),
        "",
        "Processes that are never killed; medians of what was sampled every five seconds, asked: at most"
        f" {MOST_GROWTH_MB:g} MB and {MOST_GROWTH_DESCRIPTORS:g} descriptors more in the last quarter.",
        "",
        *taken(found),
        "",
        ending(found),
        "",
        *(f"- {line}" for line in found.failed),
    ]
    out.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
