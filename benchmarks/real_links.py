"""Six nodes in network namespaces, joined by shaped links: profile, search, train; measured over expected step.

`python benchmarks/real_links.py` needs root, iproute2 and a free range 10.78.0.0/24. Every pair of nodes has a cable of
its own, slowed down to 20 to 500 Mbit/s; nothing is emulated. With --shared a node has one uplink for all its peers.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import whole_runs

from skippipe.errors import UserError
from skippipe.report.metrics import RunSummary, read_summary

RESULTS = Path(__file__).parent / "results" / "real_links.md"
NODES, SAMPLES, ITERATIONS = 6, 64, 8
PORT, RENDEZVOUS = 4000, 3999
SETTINGS = ("baseline", "ca-partial", "joint")
SECONDS = 900
UPLINK_MEGABITS = (20, 40, 80, 120, 200, 500)
"""Of each node's uplink if they are shared."""
CABLE_MEGABITS = [round(20 * 25 ** (7 * pair % 15 / 14)) for pair in range(15)]
"""Of each pair's cable: 15 rates from 20 to 500, evenly spread by their ratios."""
MODEL = ["model.d_model=128", "model.heads=2", "model.context=32", "model.feed_forward=64", "data.vocabulary=400"]
SHAPE = {
    "nodes": NODES,
    "stages": 5,
    "stage-sizes": "2,1,1,1,1",
    "path-length": 3,
    "memory": 4,
    "microbatches-per-node": 8,
    "layers-per-stage": 1,
    "d-model": 128,
    "heads": 2,
    "context": 32,
    "feed-forward": 64,
    "samples-per-microbatch": SAMPLES,
    "vocabulary": 400,
    "sync-head": "true",
    "time-budget-s": 8,
    "settings": ",".join(SETTINGS),
}


def command(*arguments: str) -> None:
    """Run ip or tc; RuntimeError with what it said if it fails."""
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.strip()}")


def host(node: int) -> str:
    """Address of a node."""
    return f"10.78.0.{node + 1}"


def shape(name: str, device: str, megabits: int) -> None:
    """Slow down what leaves a namespace through a device; the burst is what 4 ms let pass."""
    burst = max(16_000, megabits * 500)
    tbf = ["tbf", "rate", f"{megabits}mbit", "burst", str(burst), "latency", "2s"]
    command("ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", device, "root", *tbf)


def lay_cables(names: list[str]) -> None:
    """A shaped cable for every pair; a node has the same address on all of its cables, and a route to each peer."""
    for (a, b), megabits in zip(itertools.combinations(range(NODES), 2), CABLE_MEGABITS, strict=True):
        ends = f"c{b}", f"c{a}"
        cable = ["type", "veth", "peer", "name", ends[1], "netns", names[b]]
        command("ip", "link", "add", ends[0], "netns", names[a], *cable)
        for here, there, end in ((a, b, ends[0]), (b, a, ends[1])):
            command("ip", "-n", names[here], "address", "add", f"{host(here)}/32", "dev", end)
            command("ip", "-n", names[here], "link", "set", end, "up")
            command("ip", "-n", names[here], "route", "add", host(there), "dev", end, "src", host(here))
            shape(names[here], end, megabits)


def plug_into_switch(names: list[str], switch: str) -> None:
    """A shaped uplink for every node into one bridge, which has a namespace of its own."""
    command("ip", "-n", switch, "link", "add", "switch", "type", "bridge")
    command("ip", "-n", switch, "link", "set", "switch", "up")
    for node, name in enumerate(names):
        port = f"p{node}"
        command("ip", "link", "add", "uplink", "netns", name, "type", "veth", "peer", "name", port, "netns", switch)
        command("ip", "-n", name, "address", "add", f"{host(node)}/24", "dev", "uplink")
        command("ip", "-n", name, "link", "set", "uplink", "up")
        command("ip", "-n", switch, "link", "set", port, "master", "switch", "up")
        shape(name, "uplink", UPLINK_MEGABITS[node])
        shape(switch, port, UPLINK_MEGABITS[node])


@contextlib.contextmanager
def machines(shared: bool) -> Iterator[list[str]]:
    """Namespaces of the nodes, joined; gone at the end whatever happens, and all that was in them."""
    names = [f"skippipe-{os.getpid()}-{node}" for node in range(NODES)]
    switch = f"skippipe-{os.getpid()}-switch"
    made = []
    try:
        for name in [*names, *([switch] if shared else [])]:
            command("ip", "netns", "add", name)
            made.append(name)
            command("ip", "-n", name, "link", "set", "lo", "up")
        if shared:
            plug_into_switch(names, switch)
        else:
            lay_cables(names)
        yield names
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


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
        f"peers.rendezvous={host(0)}:{RENDEZVOUS}",
    ]


def measure(names: list[str], folder: Path) -> dict[str, RunSummary | str]:
    """Profile, search, and train in each setting; the runs' summaries, or why one failed."""
    ends = [[str(node), str(node + 1)] for node in range(NODES)]
    out = [["--out", f"network-{node}.yaml"] for node in range(NODES)]
    profiles = [["profile", *ends[n], str(NODES), str(SAMPLES), *MODEL, *meeting(n), *out[n]] for n in range(NODES)]
    everywhere(names, profiles, folder)
    print((folder / "profile-0.log").read_text().split("\n", 1)[-1], flush=True)
    flags = [text for name, value in SHAPE.items() for text in (f"--{name}", str(value))]
    search = ["search", "--quiet", "--network", "network-0.yaml", *flags]
    done = subprocess.run(
        [sys.executable, "-m", "skippipe", *search], cwd=folder, capture_output=True, text=True, check=False
    )
    print(done.stdout + done.stderr, flush=True)
    if done.returncode:
        raise RuntimeError("the search failed")
    summaries: dict[str, RunSummary | str] = {}
    fixed = ["schedule=schedule.json", "emulation.enabled=false", f"iterations={ITERATIONS}", *MODEL]
    for setting in SETTINGS:
        runs = [
            ["run", *ends[n], setting, str(SAMPLES), *fixed, f"name={setting}-{n}", *meeting(n)] for n in range(NODES)
        ]
        try:
            everywhere(names, runs, folder)
            summaries[setting] = read_summary(folder / "runs" / f"{setting}-0")
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            summaries[setting] = " ".join(str(error).split())[-200:]
        print(f"{setting}: {summaries[setting]}", flush=True)
    return summaries


def table(title: str, summaries: dict[str, RunSummary | str]) -> list[str]:
    """A section of the results file: a row a setting, failed ones too."""
    lines = [f"## {title}", "", "| setting | measured step s | expected step s | measured over expected |"]
    lines.append("|---|---|---|---|")
    for setting, summary in summaries.items():
        if isinstance(summary, str):
            lines.append(f"| {setting} | failed: {summary} | | |")
        else:
            times = f"{summary.measured_step_s:.3f} | {summary.expected_step_s:.3f}"
            lines.append(f"| {setting} | {times} | {summary.measured_over_expected:.2f} |")
    return [*lines, ""]


def main() -> None:
    """Run with cables of their own, then with shared uplinks if asked; write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", action="store_true", help="also with one uplink a node for all its peers")
    arguments = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("tc") is None:
        raise UserError("real_links.py makes network namespaces: run it as root, with iproute2 (ip, tc) installed")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    written = " ".join(["python benchmarks/real_links.py", *sys.argv[1:]])
    lines = whole_runs.header("Real links, no emulation", written)
    ways = [(False, "A shaped cable for each pair"), (True, "A shaped uplink for each node")]
    for shared, title in ways[: 1 + arguments.shared]:
        with tempfile.TemporaryDirectory() as folder, machines(shared) as names:
            lines += table(title, measure(names, Path(folder)))
        RESULTS.write_text("\n".join(lines))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
