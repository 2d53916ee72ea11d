"""Six nodes in network namespaces, joined by shaped links: profile, search, train; measured over expected step.

`python benchmarks/real_links.py` needs root and iproute2, and prints a table, in seven minutes; --settings names some
of the five. Every pair of nodes has a cable of its own, slowed down to 20 to 500 Mbit/s; nothing is emulated. With
--shared a node has one uplink for all peers instead.
The model is small beside its messages, so that it's links that are tested: all nodes share this machine's cores.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import whole_runs
from shaped_links import JUMBO_BYTES, NEEDS, can_make_namespaces, command, host, namespaces, plug_into_switch, shape

from skippipe.report.metrics import RunSummary, read_summary
from skippipe.report.timeline import read_spans
from skippipe.schedule import Schedule
from skippipe.schedule.plan import kind_of_step
from skippipe.schedule.simulate import step_nodes
from skippipe.schedule.timeline import KIND_NAMES, SYNC, Span
from skippipe.search.driver import SOLVERS

NODES, SAMPLES, ITERATIONS = 6, 256, 8
PORT = 4000
SECONDS = 900
IDLE_S = 0.002
"""A node that has ended its last task so long before the next one begins has waited for the message."""
UPLINK_MEGABITS = (20, 40, 80, 120, 200, 500)
"""Of each node's uplink if they are shared."""
CABLE_MEGABITS = [round(20 * 25 ** ((7 * pair % 15 / 14) ** 2), 1) for pair in range(15)]
"""Of each pair's cable: 15 rates from 20 to 500, more slow ones than fast ones."""
MODEL = ["model.d_model=128", "model.heads=1", "model.context=16", "model.feed_forward=32", "data.vocabulary=400"]
# The namespaces stand for machines and share this one's cores.
MODEL += ["threads=1"]
SHAPE = {
    "nodes": NODES,
    "stages": 5,
    "stage-sizes": "2,1,1,1,1",
    "path-length": 3,
    "memory": 2,
    "microbatches-per-node": 4,
    "layers-per-stage": 1,
    "d-model": 128,
    "heads": 1,
    "context": 16,
    "feed-forward": 32,
    "samples-per-microbatch": SAMPLES,
    "vocabulary": 400,
    "sync-head": "true",
    "time-budget-s": 12,
}


def lay_cables(names: list[str]) -> None:
    """A shaped cable for every pair; a node has the same address on all of its cables, and a route to each peer."""
    for (a, b), megabits in zip(itertools.combinations(range(NODES), 2), CABLE_MEGABITS, strict=True):
        ends = f"c{b}", f"c{a}"
        cable = ["type", "veth", "peer", "name", ends[1], "netns", names[b]]
        command("ip", "link", "add", ends[0], "netns", names[a], *cable)
        for here, there, end in ((a, b, ends[0]), (b, a, ends[1])):
            command("ip", "-n", names[here], "address", "add", f"{host(here)}/32", "dev", end)
            command("ip", "-n", names[here], "link", "set", end, "mtu", str(JUMBO_BYTES), "up")
            command("ip", "-n", names[here], "route", "add", host(there), "dev", end, "src", host(here))
            shape(names[here], end, megabits)


@contextlib.contextmanager
def machines(shared: bool) -> Iterator[list[str]]:
    """Namespaces of the nodes, joined; gone at the end whatever happens, and all that was in them."""
    names = [f"skippipe-{os.getpid()}-{node}" for node in range(NODES)]
    switch = f"skippipe-{os.getpid()}-switch"
    with namespaces([*names, *([switch] if shared else [])]):
        if shared:
            plug_into_switch(names, switch, UPLINK_MEGABITS)
        else:
            lay_cables(names)
        yield names


def everywhere(names: list[str], arguments: list[list[str]], folder: Path) -> None:
    """Run a skippipe command in each namespace and wait for all; whatever is left of them is ended."""
    environment = {**os.environ, "SKIPPIPE_SECRET": "a secret for the namespaces", "OMP_NUM_THREADS": "1"}
    started = []
    try:
        for node, name in enumerate(names):
            run = ["ip", "netns", "exec", name, sys.executable, "-m", "skippipe", *arguments[node]]
            log = (folder / f"{arguments[node][0]}-{node}.log").open("w")
            started.append(
                subprocess.Popen(
                    run, cwd=folder, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
                )
            )
            log.close()
        for node, process in enumerate(started):
            if process.wait(SECONDS):
                log_text = (folder / f"{arguments[node][0]}-{node}.log").read_text()
                raise RuntimeError(f"node {node}: {log_text[-1500:]}")
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def meeting(node: int) -> list[str]:
    """How a node is found by the others and finds them."""
    return [
        f"peers.host={host(node)}",
        f"peers.first_port={PORT}",
        f'peers.bootstrap=["{host(0)}:{PORT}"]',
    ]


def measure(names: list[str], folder: Path, queueing: str, settings: list[str]) -> list[str]:
    """Profile, search, and train in each setting; a row of the table a setting, failed ones too."""
    ends = [[str(node), str(node + 1)] for node in range(NODES)]
    out = [["--out", f"network-{node}.yaml"] for node in range(NODES)]
    profiles = [["profile", *ends[n], str(NODES), str(SAMPLES), *MODEL, *meeting(n), *out[n]] for n in range(NODES)]
    everywhere(names, profiles, folder)
    print((folder / "profile-0.log").read_text().rpartition("\r")[-1], flush=True)
    flags = [text for name, value in SHAPE.items() for text in (f"--{name}", str(value))]
    flags += ["--settings", ",".join(settings)]
    search = ["search", "--quiet", "--network", "network-0.yaml", "--queueing", queueing, *flags]
    done = subprocess.run(
        [sys.executable, "-m", "skippipe", *search], cwd=folder, capture_output=True, text=True, check=False
    )
    print(done.stdout + done.stderr, flush=True)
    if done.returncode:
        raise RuntimeError("the search failed")
    schedule = Schedule.load(folder / "schedule.json")
    fixed = ["schedule=schedule.json", "emulation.enabled=false", f"iterations={ITERATIONS}", *MODEL]
    rows = []
    for setting in settings:
        runs = [["run", *ends[n], setting, str(SAMPLES), *fixed, f"name={setting}", *meeting(n)] for n in range(NODES)]
        try:
            everywhere(names, runs, folder)
            run = folder / "runs" / setting
            rows.append(row(read_summary(run), *compared(schedule, setting, run)))
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            rows.append(f"| {setting} | failed: {' '.join(str(error).split())[-200:]} | | | | |")
        print(rows[-1], flush=True)
    return rows


def compared(schedule: Schedule, setting: str, run: Path) -> tuple[float, float]:
    """Median of measured over expected seconds of the tasks, and of the messages that nothing but their link delayed.

    The latter are those whose receiver was idle and whose link was free; the first iteration warms up.
    """
    plan, costs = schedule.plan(setting), schedule.costs.arrays
    expected = dict(zip(KIND_NAMES.values(), (costs.forward_s, costs.loss_s, costs.backward_s), strict=True))
    tasks, hops = [], []
    for iteration, spans in read_spans(run).items():
        if not iteration:
            continue
        by_step, before = steps_of(spans)
        tasks += [(span.end_s - span.start_s) / expected[span.kind][span.node] for span in by_step.values()]
        messages: dict[tuple[int, int], list[tuple[Span, Span]]] = defaultdict(list)
        for microbatch, nodes in enumerate(step_nodes(plan.paths_array).tolist()):
            kinds = [KIND_NAMES[kind_of_step(step, plan.path_length)] for step in range(len(nodes))]
            way = [by_step[kind, microbatch, node] for kind, node in zip(kinds, nodes, strict=True)]
            for sent, taken in itertools.pairwise(way):
                messages[sent.node, taken.node].append((sent, taken))
        for (sender, receiver), pairs in messages.items():
            free = 0.0
            for sent, taken in sorted(pairs, key=lambda pair: pair[0].end_s):
                if sent.end_s > free and taken.start_s - before[taken] > IDLE_S:
                    hops.append((taken.start_s - sent.end_s) / costs.hop_s[sender, receiver])
                free = max(free, sent.end_s) + costs.link_busy_s[sender, receiver]
    return statistics.median(tasks), statistics.median(hops)


def steps_of(spans: list[Span]) -> tuple[dict[tuple[str, int | None, int], Span], dict[Span, float]]:
    """An iteration's tasks by kind, microbatch and node, and when the task before each ended on its node."""
    tasks = sorted((span for span in spans if span.kind != SYNC), key=lambda span: span.start_s)
    ended: dict[int, float] = defaultdict(float)
    before = {}
    for span in tasks:
        before[span] = ended[span.node]
        ended[span.node] = span.end_s
    return {(span.kind, span.microbatch, span.node): span for span in tasks}, before


def row(summary: RunSummary, tasks: float, hops: float) -> str:
    """A setting's row of the table."""
    times = f"{summary.measured_step_s:.3f} | {summary.expected_step_s:.3f} | {summary.measured_over_expected:.2f}"
    return f"| {summary.setting} | {times} | {tasks:.2f} | {hops:.2f} |"


def main() -> int:
    """Measure on cables of their own or on shared uplinks, and print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", action="store_true", help="one uplink a node for all its peers")
    parser.add_argument("--settings", nargs="+", choices=SOLVERS, default=list(SOLVERS), help="default: all five")
    parser.add_argument("--folder", type=Path, help="where network, schedule and runs stay; by default they don't")
    arguments = parser.parse_args()
    shared = arguments.shared
    if not can_make_namespaces():
        print(f"error: {NEEDS}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as own, machines(shared) as names:
        queueing = "uplink" if shared else "link"
        rows = measure(names, arguments.folder or Path(own), queueing, arguments.settings)
    title = "A shaped uplink for each node" if shared else "A shaped cable for each pair"
    lines = whole_runs.header(title, " ".join(["python benchmarks/real_links.py", *sys.argv[1:]]))
    columns = "setting | step measured s | expected s | measured over expected | of tasks | of messages alone"
    print("\n".join([*lines, f"| {columns} |", "|---" * 6 + "|", *rows]))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped")
