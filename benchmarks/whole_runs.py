"""What benchmarks of whole runs share: starting one, reading what it left, memory of its nodes, a results file."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from skippipe.report.metrics import METRICS
from skippipe.report.run_folder import process_ids

SECONDS = 900


def start(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    """`python -m skippipe run` in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "skippipe", "run", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **environment},
    )


def wait_for_iteration(process: subprocess.Popen[str], folder: Path) -> None:
    """Until the run's first iteration is in its metrics; RuntimeError if the run ends before."""
    deadline = time.monotonic() + SECONDS
    while not (folder / METRICS).exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the run ended early: {process.communicate()[1][-2000:]}")
        time.sleep(0.1)


def finish(process: subprocess.Popen[str], seconds: float = SECONDS) -> str:
    """The run's output and errors when it has ended; RuntimeError if it failed, TimeoutExpired if it takes longer."""
    output, errors = process.communicate(timeout=seconds)
    if process.returncode != 0:
        raise RuntimeError(errors[-2000:])
    return output + errors


def ready_seconds(text: str) -> float:
    """When all nodes were ready, in seconds after the launcher's start."""
    match = re.search(r"nodes ready ([0-9.]+) s after", text)
    assert match is not None
    return float(match[1])


def proportional_megabytes(folder: Path) -> list[float]:
    """Proportional set size of each node's process (shared pages divided among their users), in MB."""
    sizes = []
    for pid in process_ids(folder).values():
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        sizes.append(int(re.search(r"^Pss:\s+(\d+)", rollup, re.M)[1]) / 1000)  # type: ignore[index]
    return sizes


def header(title: str, command: str) -> list[str]:
    """First lines of a results file."""
    versions = f"Python {platform.python_version()}, torch {importlib.metadata.version('torch')}"
    return [f"# {title}", "", f"`{command}`, {time.strftime('%Y-%m-%d')}, {hardware()}, {versions}.", ""]


def hardware() -> str:
    """Processor, cores, memory and GPU of this machine, as results files name them."""
    named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    model = named[1].strip() if named else platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {gpu()}"


def gpu() -> str:
    """The first GPU's name, as torch has it."""
    # Without a driver, as setup.sh looks for it, nobody has to wait for torch.
    if shutil.which("nvidia-smi") is None:
        return "no GPU"
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"


def resident_megabytes() -> float:
    """Resident memory of this process in MB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1000  # type: ignore[index]
