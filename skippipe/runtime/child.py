"""What a forked process does to be a node, from the launcher's fork to its exit code."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import NoReturn

from skippipe.errors import CutOffError, DivergedError, LeftOutError, NothingToResumeError, UserError
from skippipe.report.run_folder import log_file
from skippipe.runtime.endpoint import STOP_SIGNAL, Endpoint
from skippipe.runtime.processes import (
    CUT_OFF_EXIT,
    DIVERGED_EXIT,
    LEFT_OUT_EXIT,
    NOTHING_TO_RESUME_EXIT,
    PEER_LOST_EXIT,
    USER_ERROR_EXIT,
)
from skippipe.runtime.signals import Signals
from skippipe.transport.inbox import PeerLostError
from skippipe.transport.message import MalformedMessageError

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
LOG_BYTES = 4_000_000
EXITS: dict[type[Exception], int] = {
    NothingToResumeError: NOTHING_TO_RESUME_EXIT,
    UserError: USER_ERROR_EXIT,
    PeerLostError: PEER_LOST_EXIT,
    # Shared with all, so that nobody can go on with it.
    MalformedMessageError: PEER_LOST_EXIT,
    DivergedError: DIVERGED_EXIT,
    LeftOutError: LEFT_OUT_EXIT,
    CutOffError: CUT_OFF_EXIT,
}
"""Exit codes of what a node ends with that one line explains; all else is a failure of the program."""


def become(
    endpoint: Endpoint,
    run_node: Callable[[Endpoint], None],
    launcher: int,
    signals: Signals,
    reader: int,
    others: list[Endpoint],
) -> NoReturn:
    """Be the node's process until its end, whatever happens: what the launcher has to clean up is not ours.

    `launcher` is its process id; its signals, the reading end of its pipe and the other nodes' sockets are left to it.
    """
    code = 1
    try:
        # Python collects all garbage once a quarter as much is new as was left the last time, which was all modules.
        gc.collect()
        be_a_child(endpoint, launcher, signals, reader, others)
        run_node(endpoint)
        code = 0
    except tuple(EXITS) as error:
        logger.error("%s", error)
        code = next(own for kind, own in EXITS.items() if isinstance(error, kind))
    except BaseException:
        logger.error("node %d failed\n%s", endpoint.node, traceback.format_exc())
    finally:
        try:
            logging.shutdown()
            sys.stdout.flush()
        finally:
            os._exit(code)


def be_a_child(endpoint: Endpoint, launcher: int, signals: Signals, reader: int, others: list[Endpoint]) -> None:
    """Handlers, log and file descriptors of a node's own."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:
        os._exit(1)
    # STOP_SIGNAL until the node can save: a request that comes this early is not worth dying for.
    ignored = signal.SIG_IGN
    signals.leave_to({signal.SIGINT: ignored, STOP_SIGNAL: ignored, signal.SIGTERM: signal.SIG_DFL})
    path = log_file(endpoint.folder, endpoint.node)
    try:
        log = NodeLog(path)
    except OSError as error:
        raise UserError(f"node {endpoint.node}: {path} can't be written ({error.strerror})") from None
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.close(reader)
    for other in others:
        other.listeners.close()
    set_up_log(log)


def set_up_log(log: NodeLog) -> None:
    """Log into a node's file.

    It replaces any other set-up: this is the entry point of a process that does nothing but be a node.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", handlers=[log], force=True)


class NodeLog(RotatingFileHandler):
    """The log file of a node's process, also its standard output and error: bounded, and the one before is kept."""

    def __init__(self, path: Path, most: int = LOG_BYTES) -> None:
        """At the first line after `most` bytes the file becomes `path`.1, and a new one begins. OSError."""
        super().__init__(path, maxBytes=most, backupCount=1, encoding="utf-8", errors="backslashreplace")
        self.take_output()

    def doRollover(self) -> None:  # noqa: N802
        """Begin a new file."""
        super().doRollover()
        self.take_output()

    def take_output(self) -> None:
        """Let what this process prints, and what the system's libraries do, come into the file too."""
        assert self.stream is not None
        for descriptor in (1, 2):
            os.dup2(self.stream.fileno(), descriptor)
