"""benchmarks/real_links.py leaves no namespace and no process behind, and says what it needs."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.conftest import SECONDS, alive, can_make_namespaces, wait_for

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPT = BENCHMARKS / "real_links.py"

needs_namespaces = pytest.mark.skipif(not can_make_namespaces(), reason="needs root and network namespaces")


def namespaces(owner: int) -> list[str]:
    """Names of the namespaces that a process of this number has made."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return [line.split()[0] for line in listed.splitlines() if line.startswith(f"skippipe-{owner}-")]


def processes(owner: int) -> list[int]:
    """Processes within them."""
    told = [subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True) for name in namespaces(owner)]
    return [int(pid) for answer in told for pid in answer.stdout.split()]


@needs_namespaces
@pytest.mark.parametrize("arguments", [[], ["--shared"]], ids=["cables", "shared"])
def test_ctrl_c_removes_namespaces_and_ends_what_runs_in_them(arguments: list[str], tmp_path: Path) -> None:
    started = subprocess.Popen([sys.executable, str(SCRIPT), *arguments], cwd=tmp_path, start_new_session=True)
    try:
        wait_for(lambda: len(processes(started.pid)) >= 6)
        inside = processes(started.pid)
        os.killpg(started.pid, signal.SIGINT)
        assert started.wait(SECONDS) not in (0, 2)
        assert not namespaces(started.pid)
        wait_for(lambda: not any(map(alive, inside)))
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()


@needs_namespaces
@pytest.mark.parametrize("shared", [False, True])
def test_an_error_removes_namespaces(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    real_links = importlib.import_module("real_links")
    made: list[str] = []

    def fail_inside() -> None:
        with real_links.machines(shared):
            made.extend(namespaces(os.getpid()))
            raise RuntimeError("from within")

    with pytest.raises(RuntimeError, match="from within"):
        fail_inside()
    assert len(made) == 6 + shared
    assert not namespaces(os.getpid())
    # One while they are made: the name of the last is taken already.
    taken = f"skippipe-{os.getpid()}-5"
    subprocess.run(["ip", "netns", "add", taken], check=True)
    with pytest.raises(RuntimeError, match=f"ip netns add {taken}"), real_links.machines(shared):
        pytest.fail("a name was taken, and nothing came of it")
    assert not namespaces(os.getpid())


def test_without_iproute2_one_line_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 2
    assert "run it as root, with iproute2" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert shutil.which("ip", path=str(tmp_path)) is None
