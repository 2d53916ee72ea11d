"""A node's process as its launcher sees it: while it lives, and why it has ended."""

from __future__ import annotations

import math
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from skippipe.peers import PeersConfig

USER_ERROR_EXIT, PEER_LOST_EXIT, DIVERGED_EXIT, LEFT_OUT_EXIT, NOTHING_TO_RESUME_EXIT = 2, 3, 4, 5, 6
CUT_OFF_EXIT = 7
"""Exit codes of a node that can't work, that lost another one, that dropped too many iterations, that the others have
gone on without, that found with all others that there is nothing to go on from, or that too few of the others are in
reach; its log says more."""
LOG_LINES_SHOWN = 12
SIGNS_IN_SILENCE, SILENCES = 3, 2
"""A joining process gives so many signs of life in `peers.silence_seconds`, and hangs if none has come for so many."""


class NodeFailedError(Exception):
    """A node's process ended before its time."""

    def __init__(self, node: int, status: int, log: Path, left_out: bool = False) -> None:
        """`status` is what the process ended with; the launcher may know that the others have gone on without it."""
        self.node = node
        self.log = log
        self.cut_off = status == CUT_OFF_EXIT
        """Whether those who can't be reached from here may go on."""
        self.of_another = status == PEER_LOST_EXIT or self.cut_off
        self.diverged = status == DIVERGED_EXIT
        self.nothing_to_resume = status == NOTHING_TO_RESUME_EXIT
        self.left_out = left_out or status == LEFT_OUT_EXIT
        self.crashed = status < 0 or status == 1 or self.left_out
        """Whether only this process is concerned, so that others may go on."""
        self.how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"
        if self.left_out:
            self.how = "the others had gone on without it"
        how = f"was {self.how}" if status < 0 else f"ended with {self.how}"
        said = self.last_lines().rpartition(" ERROR ")[2].partition("\n")[0]
        if status == USER_ERROR_EXIT and said:
            super().__init__(f"node {node}: {said}")
        else:
            of_all = self.of_another or self.diverged or self.nothing_to_resume
            super().__init__((of_all and said) or f"node {node} {how}")

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
    birth: int = 0
    """Which of the node's processes this is."""
    is_joining: bool = False
    """Whether it is not yet one of those that train."""
    back_in: int | None = None
    """The iteration in which it came back, if it is not the node's first process here."""
    is_left_out: bool = False
    """Whether the others have gone on without it."""
    seen: float = 0.0
    """When it began, or gave its last sign that it joins, in monotonic seconds."""
    has_signed: bool = False
    """Whether it has given one."""

    def hangs_at(self, peers: PeersConfig) -> float:
        """When a joining process hangs for certain if it gives no sign until then; infinity for any other.

        Of those that train the others notice it; one that is not among them yet nobody waits for.
        """
        if not self.is_joining:
            return math.inf
        return self.seen + SILENCES * (peers.silence_seconds if self.has_signed else peers.connect_seconds)

    def close(self) -> None:
        """Forget a process that has ended."""
        os.close(self.handle)
        os.close(self.notices)
