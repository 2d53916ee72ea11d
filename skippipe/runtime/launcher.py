"""Starts this machine's nodes from one process that imported everything once, watches them, and ends them all."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import select
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from skippipe.errors import DivergedError, UserError
from skippipe.report.run_folder import log_file, write_process_id
from skippipe.runtime.endpoint import STOP_SIGNAL, Endpoint
from skippipe.runtime.events import Event, decode
from skippipe.runtime.signals import CAUGHT, Signals
from skippipe.transport.inbox import PeerLostError
from skippipe.transport.losses import DIED, FAILED

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
GRACE_SECONDS = 2.0
FAREWELL_SECONDS = 10.0
"""Most time that the nodes here get to start and to tell those on other machines who failed, before they end."""
USER_ERROR_EXIT, PEER_LOST_EXIT, DIVERGED_EXIT = 2, 3, 4
"""Exit codes of a node that can't work, that lost another one, or dropped too many iterations; its log says more."""
LOG_LINES_SHOWN = 12
PIPE_BYTES = 65536


class NodeFailedError(Exception):
    """A node's process ended before its time."""

    def __init__(self, node: int, status: int, log: Path) -> None:
        self.node = node
        self.log = log
        self.of_another = status == PEER_LOST_EXIT
        self.diverged = status == DIVERGED_EXIT
        self.crashed = status < 0 or status == 1
        """Whether only this process is concerned, so that others may go on."""
        self.how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"
        how = f"was {self.how}" if status < 0 else f"ended with {self.how}"
        said = self.last_lines().rpartition(" ERROR ")[2].partition("\n")[0]
        if status == USER_ERROR_EXIT and said:
            super().__init__(f"node {node}: {said}")
        else:
            super().__init__(((self.of_another or self.diverged) and said) or f"node {node} {how}")

    def last_lines(self) -> str:
        """The end of the node's log; empty if it could not even make one."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:])
        except OSError:
            return ""


@dataclass
class Process:
    """A started node."""

    node: int
    pid: int
    handle: int
    """File descriptor that becomes readable when the process ends (pidfd)."""
    notices: int
    """File descriptor to tell the process of failures."""

    def close(self) -> None:
        """Forget a process that has ended."""
        os.close(self.handle)
        os.close(self.notices)


class Launcher:
    """The nodes that run on this machine."""

    def __init__(
        self, endpoints: list[Endpoint], reader: int, run_node: Callable[[Endpoint], None], signals: Signals
    ) -> None:
        """`reader` is the reading end of the nodes' pipe; `run_node` is what a node's process does."""
        self.endpoints = endpoints
        self.reader = reader
        self.run_node = run_node
        self.signals = signals
        self.diverged: NodeFailedError | None = None
        self.processes: dict[int, Process] = {}
        self.rest = b""
        """The beginning of a line whose end is still to come through the pipe."""

    def start(self) -> None:
        """Fork one process a node. No thread may be alive in this process.

        Stopped if a signal comes meanwhile; OSError if there is no process to be had or no room for its id.
        """
        gc.collect()
        gc.freeze()
        for endpoint in self.endpoints:
            self.signals.check()
            self.start_node(endpoint)
        for endpoint in self.endpoints:
            endpoint.listeners.close()
        os.close(self.endpoints[0].pipe)

    def start_node(self, endpoint: Endpoint) -> None:
        """Fork the process of one node."""
        sys.stdout.flush()
        sys.stderr.flush()
        notices, to_node = os.pipe()
        launcher = os.getpid()
        # The child must not take a signal for the launcher's.
        signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)
        try:
            pid = os.fork()
            if pid == 0:
                os.close(to_node)
                self.become(replace(endpoint, notices=notices), launcher)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)
        os.close(notices)
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self.processes[endpoint.node] = Process(endpoint.node, pid, handle, to_node)
        write_process_id(endpoint.folder, endpoint.node, pid)

    def become(self, endpoint: Endpoint, launcher: int) -> NoReturn:
        """Be the node's process until its end, whatever happens: what the launcher has to clean up is not ours."""
        code = 1
        try:
            self.be_a_child(endpoint, launcher)
            self.run_node(endpoint)
            code = 0
        except UserError as error:
            logger.error("%s", error)
            code = USER_ERROR_EXIT
        except PeerLostError as error:
            logger.error("%s", error)
            code = PEER_LOST_EXIT
        except DivergedError as error:
            logger.error("%s", error)
            code = DIVERGED_EXIT
        except BaseException:
            logger.error("node %d failed\n%s", endpoint.node, traceback.format_exc())
        finally:
            try:
                logging.shutdown()
                sys.stdout.flush()
            finally:
                os._exit(code)

    def be_a_child(self, endpoint: Endpoint, launcher: int) -> None:
        """Handlers, log and file descriptors of a node's own."""
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != launcher:
            os._exit(1)
        # STOP_SIGNAL until the node can save: a request that comes this early is not worth dying for.
        ignored = signal.SIG_IGN
        self.signals.leave_to({signal.SIGINT: ignored, STOP_SIGNAL: ignored, signal.SIGTERM: signal.SIG_DFL})
        path = log_file(endpoint.folder, endpoint.node)
        try:
            log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise UserError(f"node {endpoint.node}: {path} can't be written ({error.strerror})") from None
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.close(self.reader)
        for other in self.endpoints:
            if other.node != endpoint.node:
                other.listeners.close()
        set_up_log()

    def watch(
        self, on_event: Callable[[Event], None], survives: Callable[[NodeFailedError], bool] = lambda failed: False
    ) -> None:
        """Pass on the nodes' events until all have ended well; NodeFailedError as soon as one has not.

        `survives` says whether the others go on without one that has not: they are told that it has ended.

        Stopped if a signal comes. After either it may be called again, to watch those that are left. Nodes that end
        because training diverged end together; that is raised when all of them have.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self.signals, selectors.EVENT_READ)
            selector.register(self.reader, selectors.EVENT_READ)
            for process in self.processes.values():
                selector.register(process.handle, selectors.EVENT_READ, process)
            while self.processes:
                for key, _ in selector.select():
                    if key.fileobj is self.signals:
                        self.signals.check()
                    elif key.data is None:
                        *lines, self.rest = (self.rest + os.read(self.reader, PIPE_BYTES)).split(b"\n")
                        for line in lines:
                            on_event(decode(line))
                    else:
                        selector.unregister(key.fileobj)
                        self.reap(key.data, survives)
        # What the last nodes wrote just before they ended.
        for line in (self.rest + self.read_rest()).splitlines():
            on_event(decode(line))
        if self.diverged is not None:
            raise self.diverged

    def read_rest(self) -> bytes:
        """Everything left in the pipe; all writers are gone."""
        parts = []
        while part := os.read(self.reader, PIPE_BYTES):
            parts.append(part)
        return b"".join(parts)

    def reap(self, process: Process, survives: Callable[[NodeFailedError], bool]) -> None:
        """Collect a process that has ended; NodeFailedError if it failed and the others can't go on."""
        _, status = os.waitpid(process.pid, 0)
        process.close()
        del self.processes[process.node]
        code = os.waitstatus_to_exitcode(status)
        if code != 0:
            failed = NodeFailedError(process.node, code, log_file(self.endpoints[0].folder, process.node))
            if failed.diverged:
                self.diverged = self.diverged or failed
            elif self.processes and survives(failed):
                self.notify(DIED, failed.node)
            else:
                raise failed

    def notify(self, word: str, node: int) -> None:
        """Tell every process what has become of a node."""
        for process in self.processes.values():
            # One that has just ended of its own cannot be told, and need not.
            with contextlib.suppress(BrokenPipeError):
                os.write(process.notices, f"{word} {node}\n".encode())

    def ask_to_stop(self) -> None:
        """Let all nodes end the iteration, save a checkpoint and leave."""
        for process in self.processes.values():
            signal.pidfd_send_signal(process.handle, STOP_SIGNAL)

    def stop_after(self, failed: NodeFailedError) -> None:
        """End every process, after they have told other machines, if there are any, which node here failed first."""
        if len(self.endpoints) < self.endpoints[0].nodes and not failed.of_another:
            self.notify(FAILED, failed.node)
            self.wait_until_told()
        self.stop()

    def wait_until_told(self) -> None:
        """Wait until every node has closed its end of the notices, or has ended, or a signal comes."""
        deadline = time.monotonic() + FAREWELL_SECONDS
        waiting = select.poll()
        # A pipe whose reader is gone shows POLLERR, which is always watched for.
        ends = {process.notices: process for process in self.processes.values()}
        for end in ends:
            waiting.register(end, 0)
        waiting.register(self.signals, select.POLLIN)
        while ends and (found := waiting.poll(max(0.0, 1000 * (deadline - time.monotonic())))):
            for descriptor, _ in found:
                if descriptor == self.signals.fileno():
                    return
                waiting.unregister(descriptor)
                del ends[descriptor]

    def stop(self) -> None:
        """End every process that is still there: SIGTERM, and SIGKILL after a grace or if another signal comes."""
        for process in self.processes.values():
            signal.pidfd_send_signal(process.handle, signal.SIGCONT)
            signal.pidfd_send_signal(process.handle, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while self.processes:
            process = next(iter(self.processes.values()))
            with selectors.DefaultSelector() as selector:
                selector.register(self.signals, selectors.EVENT_READ)
                ended = selector.register(process.handle, selectors.EVENT_READ)
                found = selector.select(max(0.0, deadline - time.monotonic()))
            if ended not in [key for key, _ in found]:
                self.signals.take()
                deadline = 0.0
                signal.pidfd_send_signal(process.handle, signal.SIGKILL)
            os.waitpid(process.pid, 0)
            del self.processes[process.node]
            process.close()


def set_up_log() -> None:
    """Log of a node's process: to its standard error, which is its log file.

    It replaces any other set-up: this is the entry point of a process that does nothing but be a node.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr, force=True
    )
