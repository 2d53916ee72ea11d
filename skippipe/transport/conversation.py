"""What is done with frames and heartbeats of a peer that has connected to us, and what is known of it meanwhile."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from skippipe.transport.beat import ANSWER, unpack_beat
from skippipe.transport.connected import Surroundings
from skippipe.transport.framing import STATE, FrameReceiver, Incoming
from skippipe.transport.life import Refusals
from skippipe.transport.records import RecordKind, Session
from skippipe.transport.sockets import SocketReader, send_at_once
from skippipe.transport.work import WorkState

ACKNOWLEDGE_SECONDS = 0.02
PROMPT_BYTES = 1 << 16
"""Larger frames are acknowledged at once: the sender keeps their memory until then."""
PROGRESS_SECONDS = 0.2
"""How often a frame on its way is acknowledged as far as it has come."""


@dataclass
class Neighbour:
    """A peer that has connected to us, across its connections."""

    session: bytes
    """Of its process."""
    incoming: Incoming = field(default_factory=Incoming)
    offset: float = 0.0
    """Seconds that our wire clock is ahead of its, as it measured."""
    refusals: Refusals = field(default_factory=Refusals)
    reader: SocketReader | None = None
    """Of its connection, if there is one."""


@dataclass(frozen=True)
class Handlers:
    """Where what comes from a peer goes; each is told the peer's node id."""

    deliver: Callable[[bytes, float, NDArray[np.uint8]], None]
    """Each frame's body once, with the offset from the peer's wire clock to ours; MalformedMessageError refuses it."""
    refuse: Callable[[bytes, str], None]
    """The same frame was refused once too often."""
    works: Callable[[bytes, WorkState], None]
    """How far the peer's executor is."""


class Conversation:
    """What is done with the frames and heartbeats of one accepted connection."""

    def __init__(
        self,
        connection: socket.socket,
        identity: bytes,
        neighbour: Neighbour,
        session: Session,
        most_bytes: int,
        handlers: Handlers,
        around: Surroundings,
    ) -> None:
        """Frames have bodies of at most `most_bytes`; `identity` is the peer's node id."""
        self.handlers = handlers
        self.clock = around.clock
        self.connection = connection
        self.identity = identity
        self.neighbour = neighbour
        self.sealer = session.sealer
        self.loop = asyncio.get_running_loop()
        self.owed: asyncio.TimerHandle | None = None
        """The acknowledgement that is to be sent."""
        self.told = (neighbour.incoming.delivered, neighbour.incoming.filled)
        self.told_at = self.loop.time()
        self.receiver = FrameReceiver(
            session.opener,
            neighbour.incoming,
            most_bytes,
            around.buffers,
            self.deliver,
            self.take_beat,
        )

    def deliver(self, body: NDArray[np.uint8]) -> None:
        """Hand on a frame, and owe its acknowledgement."""
        self.handlers.deliver(self.identity, self.neighbour.offset, body)
        # One acknowledgement serves many small frames; the sender waits for none of them.
        if self.owed is None:
            delay = 0.0 if len(body) > PROMPT_BYTES else ACKNOWLEDGE_SECONDS
            self.owed = self.loop.call_later(delay, self.acknowledge)

    def take_beat(self, content: bytes) -> None:
        """Answer a heartbeat, and look at what it says."""
        beat, state = unpack_beat(content)
        self.neighbour.offset = beat.offset
        answer = ANSWER.pack(beat.sent, self.clock.wire(self.clock.now()))
        send_at_once(self.connection, self.sealer.seal(RecordKind.ANSWER, answer))
        self.handlers.works(self.identity, state)

    def acknowledge(self) -> None:
        """Say how far the frames have come."""
        if self.owed is not None:
            self.owed.cancel()
            self.owed = None
        self.told = (self.neighbour.incoming.delivered, self.receiver.progress)
        self.told_at = self.loop.time()
        send_at_once(self.connection, self.sealer.seal(RecordKind.STATE, STATE.pack(*self.told)))

    def acknowledge_progress(self) -> None:
        """Say how far a frame on its way has come, from time to time."""
        late = self.loop.time() - self.told_at > PROGRESS_SECONDS
        if late and self.told != (self.neighbour.incoming.delivered, self.receiver.progress):
            self.acknowledge()

    def close(self) -> None:
        """Owe nothing any more: a peer would wait for an acknowledgement that this node takes with it."""
        if self.owed is not None:
            self.acknowledge()
