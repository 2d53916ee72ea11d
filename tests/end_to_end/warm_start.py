"""Runs forked off a process that imported everything once: a start then costs a fork, not eight seconds of imports."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWNET = 0x40000000
MOST_BYTES = 1 << 20
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Starter:
    """A process that forks runs; they become children of this one, so that subprocess can wait for them."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, **THREADS},
            start_new_session=True,
        )
        theirs.close()

    def fork(
        self, command: list[str], environment: dict[str, str], inside: str | None, stdout: int, stderr: int
    ) -> int:
        """Process id of a run of `command`, a module and its arguments, in a session of its own.

        `inside` is a network namespace that it runs in.
        """
        what = json.dumps([command, os.getcwd(), environment, inside]).encode()
        # Whose parent ends becomes a child of the next process above it that is a subreaper (man 2 prctl).
        libc = ctypes.CDLL(None)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
        try:
            socket.send_fds(self.ours, [what], [stdout, stderr])
            return int(self.ours.recv(MOST_BYTES))
        finally:
            libc.prctl(PR_SET_CHILD_SUBREAPER, 0)

    def close(self) -> None:
        """End the process; what it forked goes on."""
        self.ours.close()
        self.process.wait()


class WarmRun(subprocess.Popen[str]):
    """A run as subprocess knows it, forked off a Starter."""

    def __init__(
        self, starter: Starter, command: list[str], environment: dict[str, str], inside: str | None = None
    ) -> None:
        """Begin it; `inside` is a network namespace."""
        self.starter, self.inside = starter, inside
        pipe = subprocess.PIPE
        super().__init__(command, stdout=pipe, stderr=pipe, text=True, env=environment)

    def _execute_child(self, args: list[str], *rest: Any) -> None:
        """Fork instead of what subprocess would do; `rest` as in its method of this name."""
        environment, pipes = rest[5], rest[9:15]
        self.pid = self.starter.fork(args, environment, self.inside, pipes[3], pipes[5])
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def serve(requests: socket.socket) -> None:
    """Fork a run for each request until the other side closes; in a run's process, end when the run does."""
    while True:
        what, descriptors, _, _ = socket.recv_fds(requests, MOST_BYTES, 2)
        if not what:
            return
        reader, writer = os.pipe()
        between = os.fork()
        if between == 0:
            run = os.fork()
            if run == 0:
                for descriptor in (reader, writer, requests.detach()):
                    os.close(descriptor)
                become(*json.loads(what), *descriptors)
                return
            os.write(writer, str(run).encode())
            os._exit(0)
        os.waitpid(between, 0)
        requests.send(os.read(reader, MOST_BYTES))
        for descriptor in (reader, writer, *descriptors):
            os.close(descriptor)


def become(
    command: list[str], folder: str, environment: dict[str, str], inside: str | None, stdout: int, stderr: int
) -> None:
    """Be the run, to its end."""
    os.setsid()
    if inside is not None:
        enter(inside)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, place in ((stdout, 1), (stderr, 2)):
        os.dup2(descriptor, place)
        os.close(descriptor)
    sys.argv = command
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)


def enter(namespace: str) -> None:
    """Go into a network namespace that `ip netns` has made, as `ip netns exec` does."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}") as held:
        if libc.setns(held.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"can't enter the network namespace {namespace}")


def import_all() -> None:
    """Import what a run does."""
    from skippipe.cli.prepare import import_everything
    from skippipe.config import RunConfig

    for name in ("skippipe.cli.run", "skippipe.cli.live_evaluation", "skippipe.cli.progress", "skippipe.runtime.equal"):
        __import__(name)
    import_everything(RunConfig())
    gc.freeze()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import_all()
    serve(socket.socket(fileno=int(sys.argv[1])))
