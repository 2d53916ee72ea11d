"""How a launcher's processes end: of their own, told to, or killed; no wait lasts for ever."""

from __future__ import annotations

import logging
import os
import select
import selectors
import signal
import time

from skippipe.runtime.processes import Process
from skippipe.runtime.signals import Signals

logger = logging.getLogger(__name__)

GRACE_SECONDS = 2.0
KILLED_SECONDS = 10.0
"""Most time that a killed process is waited for: one that waits for a disk or a driver can't even be killed."""
FAREWELL_SECONDS = 10.0
"""Most time that nodes get to start and to tell those on other machines who failed, before they end."""
LAST_SAVE_SECONDS = 10.0
"""Most time that nodes get to end of their own, once too few nodes are left to go on."""


def wait_for_all(processes: dict[int, Process], signals: Signals) -> None:
    """What ended one node ends all soon, of their own: they may be saving before. A signal ends the wait."""
    deadline = time.monotonic() + LAST_SAVE_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(signals, selectors.EVENT_READ)
        for process in processes.values():
            selector.register(process.handle, selectors.EVENT_READ, process)
        while processes and (found := selector.select(max(0.0, deadline - time.monotonic()))):
            for key, _ in found:
                if key.data is None:
                    return
                selector.unregister(key.fileobj)
                reap(processes, key.data)


def wait_until_told(processes: dict[int, Process], signals: Signals) -> None:
    """Wait until every node has closed its end of the notices, or has ended, or a signal comes."""
    deadline = time.monotonic() + FAREWELL_SECONDS
    waiting = select.poll()
    # A pipe whose reader is gone shows POLLERR, which is always watched for.
    ends = {process.notices: process for process in processes.values()}
    for end in ends:
        waiting.register(end, 0)
    waiting.register(signals, select.POLLIN)
    while ends and (found := waiting.poll(max(0.0, 1000 * (deadline - time.monotonic())))):
        for descriptor, _ in found:
            if descriptor == signals.fileno():
                return
            waiting.unregister(descriptor)
            del ends[descriptor]


def stop_all(processes: dict[int, Process], signals: Signals) -> None:
    """End every process that is still there: SIGTERM, and SIGKILL after a grace or if another signal comes.

    One that does not end of that either is named in the log and left to the system.
    """
    for process in processes.values():
        signal.pidfd_send_signal(process.handle, signal.SIGCONT)
        signal.pidfd_send_signal(process.handle, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while processes:
        process = next(iter(processes.values()))
        if not has_ended(process, deadline, signals):
            deadline = 0.0
            signal.pidfd_send_signal(process.handle, signal.SIGKILL)
            if not has_ended(process, time.monotonic() + KILLED_SECONDS):
                logger.warning("node %d (process %d) does not end, even killed; leaving it", process.node, process.pid)
                del processes[process.node]
                process.close()
                continue
        reap(processes, process)


def has_ended(process: Process, deadline: float, signals: Signals | None = None) -> bool:
    """Wait until a process has ended, at most to a monotonic time, or until a signal comes, which is taken."""
    with selectors.DefaultSelector() as selector:
        ended = selector.register(process.handle, selectors.EVENT_READ)
        if signals is not None:
            selector.register(signals, selectors.EVENT_READ)
        found = [key for key, _ in selector.select(max(0.0, deadline - time.monotonic()))]
    if signals is not None and ended not in found:
        signals.take()
    return ended in found


def reap(processes: dict[int, Process], process: Process) -> None:
    """Forget a process that has ended."""
    os.waitpid(process.pid, 0)
    del processes[process.node]
    process.close()
