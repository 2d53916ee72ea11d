"""Most memory of each node against what `skippipe plan` says before: `python benchmarks/memory.py`, 15 minutes.

Six nodes run four models in each precision, with and without recompute, and with two heaps: glibc's, and one that
gives back what is freed, which shows what tensors alone take: there the estimate is without its part for the heap. A
node's own peak is what the kernel has noted, not what was sampled: its private memory now, and how much more the
process had at its most.
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
import tempfile
import time
from pathlib import Path

import whole_runs
from six_nodes import NODES, SAMPLES, SETTING, STAGES, Job

from skippipe.cli.prepare import config_from_arguments
from skippipe.cli.vocabulary import vocabulary_of
from skippipe.report.metrics import METRICS
from skippipe.report.run_folder import process_ids
from skippipe.runtime.needs import needs

JOBS = {
    "even": Job(512, 8, 256, 2048, iterations=100, rounds=1),
    "wide": Job(768, 8, 128, 2048, iterations=100, rounds=1),
    "long": Job(256, 8, 512, 2048, iterations=100, rounds=1),
    "other": Job(384, 6, 384, 1024, iterations=100, rounds=1),
}
"""Whether weights or what forwards keep is most of it; the estimate of the heap is fitted to the first three."""
ITERATIONS = 3
"""Done when memory is looked at: AdamW makes its moments in the first, and the heap is still filling up."""
REACH = 0.10
HEAPS: dict[str, dict[str, str]] = {"glibc": {}, "returning": {"MALLOC_MMAP_THRESHOLD_": "262144"}}
"""Environment of the nodes."""
COMBINATIONS = [(precision, recompute) for precision in ("fp32", "bf16") for recompute in ("false", "true")]
MB = 1e6


def own_peak(pid: int) -> float:
    """Most bytes that a process has had of its own so far."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    now = {name: 1024 * int(count) for name, count in re.findall(r"^(\w+):\s+(\d+) kB", rollup, re.M)}
    peak = re.search(r"^VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert peak is not None
    return now["Private_Dirty"] + now["Private_Clean"] + 1024 * int(peak[1]) - now["Rss"]


def peaks(job: Job, fields: list[str], heap: dict[str, str], place: Path) -> dict[int, float]:
    """Most bytes of every node of a run, by node; RuntimeError if the run fails."""
    job.schedule().save(place / "schedule.json")
    arguments = ["0", str(NODES), SETTING, str(SAMPLES), *fields, f"runs={place}", "name=run"]
    process = whole_runs.start(arguments, **heap)
    try:
        whole_runs.wait_for_iteration(process, place / "run")
        while (place / "run" / METRICS).read_text().count("\n") < ITERATIONS:
            if process.poll() is not None:
                raise RuntimeError(process.communicate()[1][-2000:])
            time.sleep(0.1)
        return {node: own_peak(pid) for node, pid in process_ids(place / "run").items()}
    finally:
        process.terminate()
        process.communicate()


def rows(name: str, precision: str, recompute: str, heap: str, place: Path) -> list[str]:
    """A line for each stage."""
    job = JOBS[name]
    fields = [*job.fields, f"schedule={place}/schedule.json", f"precision={precision}", f"recompute={recompute}"]
    measured = peaks(job, fields, HEAPS[heap], place)
    config = config_from_arguments(fields)
    estimates = needs(config, job.schedule(), SETTING, vocabulary_of(config.data))
    expected = {own.node: own.on_cpu - (own.heap if HEAPS[heap] else 0) for own in estimates}
    lines = []
    for stage, nodes in enumerate(STAGES):
        ratios = [measured[node] / expected[node] for node in nodes]
        sizes = [spread([part[node] / MB for node in nodes], 0) for part in (expected, measured)]
        met = "yes" if all(abs(ratio - 1) <= REACH for ratio in ratios) else "**NO**"
        cells = [name, heap, precision, recompute, str(stage), *sizes, spread(ratios, 2), met]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def spread(values: list[float], digits: int) -> str:
    """The least and the largest, or the one that all are."""
    texts = [f"{value:.{digits}f}" for value in (min(values), max(values))]
    return texts[0] if texts[0] == texts[1] else " to ".join(texts)


def main() -> None:
    """Measure all, and write a table; what fails has a row too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--heaps", nargs="+", choices=HEAPS, default=list(HEAPS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/memory.md"), help="results file")
    options = parser.parse_args()
    command = f"python benchmarks/memory.py --jobs {' '.join(options.jobs)} --heaps {' '.join(options.heaps)}"
    models = ", ".join(f"{name}: width {JOBS[name].d_model}, context {JOBS[name].context}" for name in options.jobs)
    lines = [
        *whole_runs.header("Memory of nodes", command),
        f"{NODES} nodes, a layer each, {SAMPLES} samples, six microbatches; {models}. Each node's most in {ITERATIONS}"
        f" iterations. Reach: within {100 * REACH:.0f}% of what is estimated.",
        "",
        "| job | heap | precision | recompute | stage | estimated MB | measured MB | measured over estimated | met |",
        "|---" * 9 + "|",
    ]
    for name, heap, (precision, recompute) in itertools.product(options.jobs, options.heaps, COMBINATIONS):
        try:
            with tempfile.TemporaryDirectory() as place:
                found = rows(name, precision, recompute, heap, Path(place))
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            said = " ".join(str(error).split())[-200:]
            found = [f"| {name} | {heap} | {precision} | {recompute} | - | failed: {said} | | | |"]
        lines += found
        print(*found, sep="\n", flush=True)
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
