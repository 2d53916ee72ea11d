"""What a link consists of: a connection past its handshake, how one is made, and what all links of a node share."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from skippipe.transport.buffers import BufferPool
from skippipe.transport.clocks import Clock, ClockOffset
from skippipe.transport.in_step import InStep
from skippipe.transport.records import Session
from skippipe.transport.work import Work

LONGEST_BEAT_SECONDS = 5.0
BEATS_IN_SILENCE = 3
"""So many heartbeats at least go unanswered before a peer is given up."""
PATIENCE_SECONDS = 1.0
"""So long at most other peers wait for one that takes nothing (in_step.py): well before they were silent themselves."""


class RefusedError(Exception):
    """A peer that belongs to the run refuses what we send; the message is its reason."""


@dataclass
class Connected:
    """A connection to the peer, past its handshake."""

    connection: socket.socket
    session: Session
    delivered: int
    """The last frame that the peer has of us."""
    partial: int
    """Bytes that it has of the next one's body."""
    is_another: bool = False
    """Whether the peer is another process than the one that we were connected to before, which is lost."""


Connect = Callable[[float, ClockOffset], Awaitable[Connected]]
"""Finds the peer by a deadline (loop time), connects, and takes the first sample of the clocks' offset.

Raises PeerNotFoundError, AuthenticationError, RefusedError, or OSError, of which TimeoutError is one.
"""
ReportLost = Callable[[int, str], None]
"""Is told which node is lost, and why."""


@dataclass
class Surroundings:
    """What all links of a node have in common."""

    clock: Clock
    work: Work
    buffers: BufferPool
    connect_seconds: float
    """How long a peer is looked for before training."""
    silence_seconds: float
    """How long it may be without life later."""
    trains: bool = False
    """Whether this node is one of those that train: all of them are there, or lost."""
    in_step: InStep = field(init=False)

    def __post_init__(self) -> None:
        self.in_step = InStep(min(PATIENCE_SECONDS, self.beat_seconds))

    @property
    def first_seconds(self) -> float:
        """How long a peer is looked for to which there was no connection yet."""
        return self.silence_seconds if self.trains else self.connect_seconds

    @property
    def beat_seconds(self) -> float:
        """Time between two heartbeats."""
        return min(LONGEST_BEAT_SECONDS, self.silence_seconds / BEATS_IN_SILENCE)
