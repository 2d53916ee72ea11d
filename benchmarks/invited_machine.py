"""How soon a machine trains that follows an invitation: `python benchmarks/invited_machine.py`, as root, with iproute2.

Both machines are network namespaces of this one, with ten of the 20 nodes of run.sh's example each, and its text. The
second has nothing of the run, but SkipPipe and its requirements installed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import whole_runs
from shaped_links import NEEDS, can_make_namespaces, command, namespaces

LINE = "./run.sh "
RUN = ["ca-partial", "8"]
NAMES = tuple(f"skippipe-{os.getpid()}-{place}" for place in ("host", "newcomer"))


@contextlib.contextmanager
def machines() -> Iterator[None]:
    """Two namespaces joined by a cable, 10.79.0.1 and 10.79.0.2; gone at the end."""
    host, newcomer = NAMES
    with namespaces([*NAMES]):
        command("ip", "link", "add", "cable", "netns", host, "type", "veth", "peer", "name", "cable", "netns", newcomer)
        for number, name in enumerate(NAMES, start=1):
            command("ip", "-n", name, "address", "add", f"10.79.0.{number}/24", "dev", "cable")
            command("ip", "-n", name, "link", "set", "cable", "up")
        yield


def start(name: str, arguments: list[str]) -> subprocess.Popen[str]:
    """`python -m skippipe run` in a namespace; what it prints can be read at once."""
    run = ["ip", "netns", "exec", name, sys.executable, "-m", "skippipe", "run", *arguments]
    environment = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONUNBUFFERED"), "1")
    pipe = subprocess.PIPE
    return subprocess.Popen(run, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **environment})


def said(process: subprocess.Popen[str], what: str) -> str:
    """The next line that it prints with these words; RuntimeError if it ends before."""
    assert process.stdout is not None
    for text in process.stdout:
        if what in text:
            return text
    raise RuntimeError(process.communicate()[1][-2000:])


def measure(place: Path, repeat: int) -> tuple[float, float]:
    """Seconds from the newcomer's command until its nodes are ready, and until its first figures are written."""
    name = f"run-{repeat}"
    own = [f"runs={place}/host", f"data.cache={place}/cache", f"name={name}", "iterations=2"]
    host = start(NAMES[0], ["0", "10", *RUN, *own, "--host"])
    started = [host]
    try:
        line = said(host, LINE)
        # Whoever copies it takes longer.
        time.sleep(5)
        first, last, *rest = line.removeprefix(LINE).split()
        folder = place / f"newcomer-{repeat}"
        began = time.monotonic()
        own = [f"runs={folder}", f"data.cache={folder}/cache"]
        newcomer = start(NAMES[1], [first, last, *rest[:2], *own, *rest[2:]])
        started.append(newcomer)
        said(newcomer, "nodes ready")
        ready = time.monotonic() - began
        whole_runs.wait_for_iteration(newcomer, folder / name)
        trained = time.monotonic() - began
        for process in started:
            whole_runs.finish(process)
    finally:
        for process in started:
            if process.poll() is None:
                process.terminate()
                process.communicate()
    return ready, trained


def main() -> int:
    """Invite again and again and print how long it took; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="runs; medians are shown")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/invited_machine.md"), help="results file")
    arguments = parser.parse_args()
    if not can_make_namespaces():
        print(f"error: {NEEDS}", file=sys.stderr)
        return 2
    lines = whole_runs.header(
        "An invited machine", f"python benchmarks/invited_machine.py --repeats {arguments.repeats}"
    )
    lines += ["| what | s after the invited machine's command (median; all) |", "|---|---|"]
    with tempfile.TemporaryDirectory() as place, machines():
        pairs = [measure(Path(place), repeat) for repeat in range(arguments.repeats)]
    measured = zip(
        ("its nodes are ready and train", "figures of its first iteration are written, at the end of the second"),
        zip(*pairs, strict=True),
        strict=True,
    )
    for what, values in measured:
        every = ", ".join(f"{value:.1f}" for value in values)
        lines.append(f"| {what} | {statistics.median(values):.1f} ({every}) |")
        print(lines[-1], flush=True)
    arguments.out.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
