"""Starts this machine's nodes from one process that imported everything once, watches them, and ends them all."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from skippipe.errors import UserError
from skippipe.report.run_folder import log_file, write_process_id
from skippipe.runtime.endpoint import STOP_SIGNAL, Endpoint
from skippipe.runtime.events import Event, decode
from skippipe.transport.inbox import PeerLostError

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
GRACE_SECONDS = 2.0
FAREWELL_SECONDS = 0.5
"""Time for the nodes here to tell those on other machines who failed, before they end."""
PEER_LOST_EXIT = 3
"""Exit code of a node that ended because another one did; the last line of its log says which."""
LOG_LINES_SHOWN = 12
PIPE_BYTES = 65536


class NodeFailedError(Exception):
    """A node's process ended before its time."""

    def __init__(self, node: int, status: int, log: Path) -> None:
        self.node = node
        self.log = log
        self.of_another = status == PEER_LOST_EXIT
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit code {status}"
        found = self.last_lines().rpartition(" ERROR ")[2] if self.of_another else ""
        super().__init__(found or f"node {node} {how}")

    def last_lines(self) -> str:
        """The end of the node's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:])


class Stopped(BaseException):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


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

    def __init__(self, endpoints: list[Endpoint], reader: int, run_node: Callable[[Endpoint], None]) -> None:
        """`reader` is the reading end of the nodes' pipe; `run_node` is what a node's process does."""
        self.endpoints = endpoints
        self.reader = reader
        self.run_node = run_node
        self.processes: dict[int, Process] = {}
        self.rest = b""
        """The beginning of a line whose end is still to come through the pipe."""

    def start(self) -> None:
        """Fork one process a node. No thread may be alive in this process."""
        gc.collect()
        gc.freeze()
        for endpoint in self.endpoints:
            sys.stdout.flush()
            sys.stderr.flush()
            notices, to_node = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(to_node)
                self.become(replace(endpoint, notices=notices))
            os.close(notices)
            write_process_id(endpoint.folder, endpoint.node, pid)
            self.processes[endpoint.node] = Process(endpoint.node, pid, os.pidfd_open(pid), to_node)
        for endpoint in self.endpoints:
            endpoint.listeners.close()
        os.close(self.endpoints[0].pipe)

    def become(self, endpoint: Endpoint) -> NoReturn:
        """Be the node's process until its end."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Until the node can save: a request that comes this early is not worth dying for.
        signal.signal(STOP_SIGNAL, signal.SIG_IGN)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        log = os.open(log_file(endpoint.folder, endpoint.node), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.close(self.reader)
        for other in self.endpoints:
            if other.node != endpoint.node:
                other.listeners.close()
        set_up_log()
        code = 1
        try:
            self.run_node(endpoint)
            code = 0
        except UserError as error:
            logger.error("%s", error)
        except PeerLostError as error:
            logger.error("%s", error)
            code = PEER_LOST_EXIT
        except BaseException:
            logger.error("node %d failed\n%s", endpoint.node, traceback.format_exc())
        finally:
            logging.shutdown()
            sys.stdout.flush()
            os._exit(code)

    def watch(self, on_event: Callable[[Event], None]) -> None:
        """Pass on the nodes' events until all have ended well; NodeFailedError as soon as one has not.

        It may be called again after an error, to watch those that are left.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self.reader, selectors.EVENT_READ)
            for process in self.processes.values():
                selector.register(process.handle, selectors.EVENT_READ, process)
            while len(selector.get_map()) > 1:
                for key, _ in selector.select():
                    if key.data is None:
                        *lines, self.rest = (self.rest + os.read(self.reader, PIPE_BYTES)).split(b"\n")
                        for line in lines:
                            on_event(decode(line))
                        continue
                    selector.unregister(key.fileobj)
                    self.reap(key.data)
        # What the last nodes wrote just before they ended.
        for line in (self.rest + self.read_rest()).splitlines():
            on_event(decode(line))

    def read_rest(self) -> bytes:
        """Everything left in the pipe; all writers are gone."""
        parts = []
        while part := os.read(self.reader, PIPE_BYTES):
            parts.append(part)
        return b"".join(parts)

    def reap(self, process: Process) -> None:
        """Collect a process that has ended; NodeFailedError if it failed."""
        _, status = os.waitpid(process.pid, 0)
        process.close()
        del self.processes[process.node]
        code = os.waitstatus_to_exitcode(status)
        if code != 0:
            raise NodeFailedError(process.node, code, log_file(self.endpoints[0].folder, process.node))

    def ask_to_stop(self) -> None:
        """Let all nodes end the iteration, save a checkpoint and leave."""
        for process in self.processes.values():
            signal.pidfd_send_signal(process.handle, STOP_SIGNAL)

    def stop_after(self, failed: NodeFailedError) -> None:
        """End every process, after they have told other machines, if there are any, which node here failed first."""
        if len(self.endpoints) < self.endpoints[0].nodes and not failed.of_another:
            for process in self.processes.values():
                # One that has just ended of its own cannot be told, and need not.
                with contextlib.suppress(BrokenPipeError):
                    os.write(process.notices, f"{failed.node}\n".encode())
            time.sleep(FAREWELL_SECONDS)
        self.stop()

    def stop(self) -> None:
        """End every process that is still there: SIGTERM, and SIGKILL after a grace."""
        for process in self.processes.values():
            signal.pidfd_send_signal(process.handle, signal.SIGCONT)
            signal.pidfd_send_signal(process.handle, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        for process in list(self.processes.values()):
            with selectors.DefaultSelector() as selector:
                selector.register(process.handle, selectors.EVENT_READ)
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    signal.pidfd_send_signal(process.handle, signal.SIGKILL)
            os.waitpid(process.pid, 0)
            process.close()
        self.processes.clear()


def set_up_log() -> None:
    """Log of a node's process: to its standard error, which is its log file.

    It replaces any other set-up: this is the entry point of a process that does nothing but be a node.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr, force=True
    )


def stop_on_signals() -> None:
    """Turn SIGINT and SIGTERM into Stopped in this process."""

    def stop(number: int, _: object) -> None:
        raise Stopped(number)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
