"""Real runs for tests: `python -m skippipe run` in a process group of its own, always reaped."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.warm_start import Starter, WarmRun
from tests.small_schedule import make_workplace

SECONDS = 120

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="session", autouse=True)
def _children_hear_ctrl_c() -> None:
    """Whatever started the tests in the background may ignore SIGINT, and children would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small schedule, a small corpus and a configuration that names both."""
    folder = tmp_path_factory.mktemp("workplace")
    make_workplace(folder)
    return folder


@pytest.fixture(scope="session")
def starter() -> Iterator[Starter]:
    """A process that has imported what runs import."""
    starter = Starter()
    yield starter
    starter.close()


@pytest.fixture
def start(workplace: Path, starter: Starter) -> Iterator[Start]:
    """Start `python -m skippipe run` with these arguments; whatever is left of it is killed at the end.

    `inside` is a network namespace; `patched` a module of this folder and its arguments, which then takes skippipe's
    place. `cold` starts a new interpreter, as a user does, which has to import everything first.
    """
    started: list[subprocess.Popen[str]] = []

    def start_run(
        *arguments: str,
        inside: str | None = None,
        patched: tuple[str, ...] = (),
        clock_ahead: int = 0,
        cold: bool = False,
        **environment: str,
    ) -> subprocess.Popen[str]:
        namespace = ["ip", "netns", "exec", inside] if inside else []
        if clock_ahead:
            ahead = [f"--monotonic={clock_ahead}", f"--boottime={clock_ahead}"]
            namespace += ["unshare", "--time", *ahead, "--fork", "--kill-child"]
        module = [f"tests.end_to_end.{patched[0]}", *patched[1:]] if patched else ["skippipe"]
        command, own = [*module, "run", *arguments], {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        if not cold and not clock_ahead:
            process: subprocess.Popen[str] = WarmRun(starter, command, own, inside)
        else:
            process = subprocess.Popen(
                [*namespace, sys.executable, "-m", *command],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=own,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield start_run
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        finally:
            process.communicate()


def free_ports(count: int) -> int:
    """The first of `count` neighbouring ports that nobody listens on, for runs that must be told their ports."""
    while not ports_are_free(first := random.randrange(20000, 30000), count):
        pass
    return first


def ports_are_free(first: int, count: int) -> bool:
    """Whether `count` neighbouring ports of 127.0.0.1 can be bound, for streams and for datagrams."""
    with contextlib.ExitStack() as stack:
        try:
            for port in range(first, first + count):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    listener = stack.enter_context(socket.socket(socket.AF_INET, kind))
                    # A connection that has ended keeps its address for a minute; a listener is what must be gone.
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
                    listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_for(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Wait until a condition holds; fail the test if it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def can_make_namespaces() -> bool:
    """Whether this process may make network namespaces."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        return False
    probe = f"skippipe-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False).returncode == 0
    if made:
        subprocess.run(["ip", "netns", "del", probe], check=True)
    return made


def ip(*arguments: str) -> None:
    """Run the ip command."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Names of two network namespaces, 10.77.0.1 and 10.77.0.2, joined by a cable."""
    if not can_make_namespaces():
        pytest.skip("needs root and iproute2 to make network namespaces")
    names = (f"skippipe-a-{os.getpid()}", f"skippipe-b-{os.getpid()}")
    try:
        for name in names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        for number, name in enumerate(names, start=1):
            ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
