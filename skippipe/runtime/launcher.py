"""Starts this machine's nodes from one process that imported everything once, watches them, and ends them all."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from skippipe.report.run_folder import log_file, write_process_id
from skippipe.runtime.child import become
from skippipe.runtime.claims import Claims
from skippipe.runtime.endpoint import BOOTSTRAP_NODES, STOP_SIGNAL, Endpoint
from skippipe.runtime.events import Event, IterationLoss, Joining, NodeBack, ViewBegun, decode
from skippipe.runtime.processes import NodeFailedError, Process
from skippipe.runtime.restarts import Restarts
from skippipe.runtime.signals import CAUGHT, Signals
from skippipe.runtime.stopping import stop_all, wait_for_all, wait_until_told
from skippipe.transport.discovery import adapt_deccom
from skippipe.transport.losses import DIED, FAILED
from skippipe.transport.membership import Listeners

logger = logging.getLogger(__name__)

PIPE_BYTES = 65536


class Launcher:
    """The nodes that run on this machine."""

    def __init__(
        self,
        endpoints: list[Endpoint],
        reader: int,
        run_node: Callable[[Endpoint], None],
        signals: Signals,
        claims: Claims,
    ) -> None:
        """`reader` is the reading end of the nodes' pipe; `run_node` is what a node's process does."""
        self.endpoints = endpoints
        self.claims = claims
        self.reader = reader
        self.run_node = run_node
        self.signals = signals
        self.diverged: NodeFailedError | None = None
        self.restarts = Restarts(endpoints[0].peers.restart, endpoints[0].first_birth)
        listeners = {endpoint.node: endpoint.listeners for endpoint in endpoints}
        self.addresses = {node: own.address for node, own in listeners.items()}
        self.ports = {node: (own.bound[1], own.bound_stream_port) for node, own in listeners.items()}
        """For datagrams and streams: a node's next process has the same ones."""
        self.processes: dict[int, Process] = {}
        self.iteration = 0
        """The newest that a node here has told of."""
        self.view = 0
        """The newest that was told of: whoever speaks after a node that has died tells the last ones again."""
        self.rest = b""
        """The beginning of a line whose end is still to come through the pipe."""

    def start(self) -> None:
        """Fork one process a node. No thread may be alive in this process.

        Stopped if a signal comes meanwhile; OSError if there is no process to be had or no room for its id.
        """
        # Once here instead of once a node, which would copy the memory of all modules that it looks through.
        adapt_deccom()
        gc.collect()
        gc.freeze()
        for endpoint in self.endpoints:
            self.signals.check()
            self.start_node(endpoint)
        for endpoint in self.endpoints:
            endpoint.listeners.close()

    def start_again(self, node: int, birth: int) -> Process:
        """Fork another process of a node, which joins those that live; OSError if that can't be had."""
        endpoint = next(endpoint for endpoint in self.endpoints if endpoint.node == node)
        living = [self.addresses[other] for other in self.processes][:BOOTSTRAP_NODES]
        port, stream_port = self.ports[node]
        listeners = Listeners.bind(endpoint.peers.host, port, endpoint.listeners.advertised, stream_port)
        try:
            bootstrap = tuple(dict.fromkeys((*endpoint.bootstrap, *living)))
            # Meanwhile others may have gone to another machine.
            around = replace(endpoint.neighbourhood, places={})
            again = replace(endpoint, listeners=listeners, birth=birth, bootstrap=bootstrap, neighbourhood=around)
            self.start_node(again)
        finally:
            listeners.close()
        return self.processes[node]

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
                others = [other for other in self.endpoints if other.node != endpoint.node]
                become(replace(endpoint, notices=notices), self.run_node, launcher, self.signals, self.reader, others)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)
        os.close(notices)
        try:
            write_process_id(endpoint.folder, endpoint.node, pid)
            handle = os.pidfd_open(pid)
        except OSError:
            os.close(to_node)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        node, birth = endpoint.node, endpoint.birth
        is_joining = birth > endpoint.first_birth
        self.processes[node] = Process(node, pid, handle, to_node, birth, is_joining, seen=time.monotonic())

    def watch(
        self,
        on_event: Callable[[Event], None],
        survives: Callable[[NodeFailedError], bool] = lambda failed: False,
        stays_away: Callable[[int], None] = lambda node: None,
    ) -> None:
        """Pass on the nodes' events until all have ended well; NodeFailedError as soon as one has not.

        `survives` says whether the others go on without one that has not: they are told that it has ended, and it
        begins again, unless it has done so too often, which `stays_away` is told.

        Stopped if a signal comes. After either it may be called again, to watch those that are left. Nodes that end
        because training diverged end together; that is raised when all of them have.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self.signals, selectors.EVENT_READ)
            selector.register(self.reader, selectors.EVENT_READ)
            for process in self.processes.values():
                selector.register(process.handle, selectors.EVENT_READ, process)
            while self.trains:
                for key, _ in selector.select(self.wait_s(time.monotonic())):
                    if key.fileobj is self.signals:
                        self.signals.check()
                    elif key.data is None:
                        *lines, self.rest = (self.rest + os.read(self.reader, PIPE_BYTES)).split(b"\n")
                        for line in lines:
                            self.take(decode(line), on_event)
                    else:
                        selector.unregister(key.fileobj)
                        self.reap(key.data, survives, stays_away)
                self.end_hanging(time.monotonic())
                for process in self.restart(stays_away):
                    selector.register(process.handle, selectors.EVENT_READ, process)
        # Whoever has not joined yet comes too late.
        self.stop()
        os.close(self.endpoints[0].pipe)
        # What the last nodes wrote just before they ended.
        for line in (self.rest + self.read_rest()).splitlines():
            on_event(decode(line))
        if self.diverged is not None:
            raise self.diverged

    @property
    def trains(self) -> bool:
        """Whether a node here is one of those that work together."""
        return any(not process.is_joining for process in self.processes.values())

    def wait_s(self, now: float) -> float | None:
        """Seconds until a process is to begin, or hangs if it gives no sign; None if none will."""
        hangs_at = min((each.hangs_at(self.endpoints[0].peers) for each in self.processes.values()), default=math.inf)
        waits = [self.restarts.wait_s(now), None if hangs_at == math.inf else max(0.0, hangs_at - now)]
        return min((wait_s for wait_s in waits if wait_s is not None), default=None)

    def end_hanging(self, now: float) -> None:
        """End processes that were to join and have given no sign for too long: another one may do better."""
        for process in self.processes.values():
            if process.hangs_at(self.endpoints[0].peers) <= now:
                logger.warning("node %d was to join and gives no sign of life: its process is ended", process.node)
                # Once: one that waits for a disk or a driver ends later, or never.
                process.seen = math.inf
                signal.pidfd_send_signal(process.handle, signal.SIGKILL)

    def take(self, event: Event, on_event: Callable[[Event], None]) -> None:
        """Pass on an event, after what it means for the processes here."""
        if isinstance(event, Joining):
            if (process := self.processes.get(event.node)) is not None:
                process.seen, process.has_signed = time.monotonic(), True
            return
        if isinstance(event, NodeBack) and event.node in self.processes:
            process = self.processes[event.node]
            process.is_joining, process.back_in = False, event.iteration
        if isinstance(event, ViewBegun | IterationLoss):
            self.iteration = max(self.iteration, event.iteration)
        if isinstance(event, ViewBegun) and event.number > self.view:
            self.view = event.number
            for node in event.lost:
                self.end_left_out(node)
        on_event(event)

    def end_left_out(self, node: int) -> None:
        """End a process here that the others have gone on without: nobody may be able to tell it so."""
        process = self.processes.get(node)
        if process is not None and not process.is_joining:
            process.is_left_out = True
            signal.pidfd_send_signal(process.handle, signal.SIGKILL)

    def restart(self, stays_away: Callable[[int], None]) -> list[Process]:
        """Start the processes that are due, of nodes that have died."""
        started = []
        for node, birth in self.restarts.take_due(time.monotonic()):
            try:
                started.append(self.start_again(node, birth))
            except OSError as error:
                logger.warning("node %d can't be started again (%s)", node, error)
                self.plan_another(node, stays_away)
        return started

    def plan_another(
        self, node: int, stays_away: Callable[[int], None], iterations: int | None = None, left_out: bool = False
    ) -> None:
        """A node begins again later (Restarts.plan), or stays away: then another launcher may have it."""
        if not self.restarts.plan(node, time.monotonic(), iterations, left_out):
            self.claims.give_back(node)
            stays_away(node)

    def read_rest(self) -> bytes:
        """Everything left in the pipe; all writers are gone."""
        parts = []
        while part := os.read(self.reader, PIPE_BYTES):
            parts.append(part)
        return b"".join(parts)

    def reap(
        self, process: Process, survives: Callable[[NodeFailedError], bool], stays_away: Callable[[int], None]
    ) -> None:
        """Collect a process that has ended; NodeFailedError if it failed and the others can't go on."""
        _, status = os.waitpid(process.pid, 0)
        process.close()
        del self.processes[process.node]
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            return
        log = log_file(self.endpoints[0].folder, process.node)
        failed = NodeFailedError(process.node, code, log, process.is_left_out)
        if failed.diverged:
            self.diverged = self.diverged or failed
        elif self.trains and (survives(failed) or process.is_joining):
            self.notify(DIED, failed.node, process.birth)
            iterations = None if process.back_in is None else self.iteration - process.back_in
            self.plan_another(failed.node, stays_away, iterations, failed.left_out)
        else:
            raise failed

    def notify(self, word: str, *numbers: int) -> None:
        """Tell every process what has become of a node."""
        line = " ".join((word, *map(str, numbers))) + "\n"
        for process in self.processes.values():
            # One that has just ended of its own cannot be told, and need not.
            with contextlib.suppress(BrokenPipeError):
                os.write(process.notices, line.encode())

    def ask_to_stop(self) -> None:
        """Let all nodes end the iteration, save a checkpoint and leave."""
        self.restarts.due.clear()
        for process in self.processes.values():
            signal.pidfd_send_signal(process.handle, STOP_SIGNAL)

    def stop_after(self, failed: NodeFailedError) -> None:
        """End every process, after they have told other machines, if there are any, which node here failed first."""
        if failed.of_another or failed.nothing_to_resume:
            wait_for_all(self.processes, self.signals)
        elif len(self.endpoints) < self.endpoints[0].nodes:
            self.notify(FAILED, failed.node)
            wait_until_told(self.processes, self.signals)
        self.stop()

    def stop(self) -> None:
        """End every process that is still there: SIGTERM, and SIGKILL after a grace or if another signal comes."""
        stop_all(self.processes, self.signals)
