"""What benchmarks of whole runs share: starting one, reading what it left, memory of its nodes, a results file."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

SECONDS = 900


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """`python -m skippipe run` in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "skippipe", "run", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )


def wait_for_iteration(process: subprocess.Popen[str], folder: Path) -> None:
    """Until the run's first iteration is in its metrics; RuntimeError where the run ends before."""
    deadline = time.monotonic() + SECONDS
    while not (folder / "metrics.jsonl").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the run ended early: {process.communicate()[1][-2000:]}")
        time.sleep(0.1)


def finish(process: subprocess.Popen[str]) -> str:
    """The run's output and errors when it has ended; RuntimeError where it failed."""
    output, errors = process.communicate(timeout=SECONDS)
    if process.returncode != 0:
        raise RuntimeError(errors[-2000:])
    return output + errors


def ready_seconds(text: str) -> float:
    """When all nodes were ready, in seconds after the launcher's start."""
    match = re.search(r"nodes ready ([0-9.]+) s after", text)
    assert match is not None
    return float(match[1])


def summary(folder: Path) -> dict[str, Any]:
    """The run's summary.json."""
    return dict(json.loads((folder / "summary.json").read_text()))


def iterations(folder: Path) -> list[dict[str, Any]]:
    """The run's metrics, a mapping an iteration."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def proportional_megabytes(folder: Path) -> list[float]:
    """Proportional set size of each node's process (shared pages divided among their users), in MB."""
    sizes = []
    for path in sorted(folder.glob("node-*.pid")):
        rollup = Path(f"/proc/{path.read_text().strip()}/smaps_rollup").read_text()
        sizes.append(int(re.search(r"^Pss:\s+(\d+)", rollup, re.M)[1]) / 1000)  # type: ignore[index]
    return sizes


def header(title: str, command: str) -> list[str]:
    """First lines of a results file."""
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"
    return [f"# {title}", "", f"`{command}`, {time.strftime('%Y-%m-%d')}, {machine}.", ""]


def resident_megabytes() -> float:
    """Resident memory of this process in MB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1000  # type: ignore[index]
