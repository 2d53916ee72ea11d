"""What a node brings into a run: its bound sockets, who it is among how many, and what it lets peers ask of it."""

from __future__ import annotations

import math
import socket
from dataclasses import dataclass, field

from skippipe.transport.addresses import LOOPBACK, Address, family_of
from skippipe.transport.run_identity import RunIdentity

BACKLOG = 256


@dataclass(frozen=True)
class Listeners:
    """A node's bound sockets: UDP for discovery, TCP for streams, on one host."""

    host: str
    datagrams: socket.socket
    streams: socket.socket
    advertised: Address | None = None
    """Where peers reach both, if that differs from what is bound."""

    @classmethod
    def bind(
        cls, host: str, port: int = 0, advertised: Address | None = None, stream_port: int | None = None
    ) -> Listeners:
        """Bind both sockets, to `port`, or streams to their own, or to free ones; OSError if they are taken."""
        family = family_of(host)
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        streams = socket.socket(family, socket.SOCK_STREAM)
        try:
            datagrams.bind((host, port))
            streams.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            streams.bind((host, port if stream_port is None else stream_port))
            streams.listen(BACKLOG)
        except OSError:
            datagrams.close()
            streams.close()
            raise
        return cls(host, datagrams, streams, advertised)

    @property
    def address(self) -> Address:
        """Where datagrams reach this node."""
        return self.advertised or self.bound

    @property
    def bound(self) -> Address:
        """Where datagrams of this machine reach this node."""
        return LOOPBACK.get(self.host, self.host), int(self.datagrams.getsockname()[1])

    @property
    def bound_stream_port(self) -> int:
        """Where streams of this machine reach this node."""
        return int(self.streams.getsockname()[1])

    @property
    def stream_port(self) -> int:
        """The port at which peers connect to this node."""
        return self.advertised[1] if self.advertised else self.bound_stream_port

    def close(self) -> None:
        """Close both sockets."""
        self.datagrams.close()
        self.streams.close()


@dataclass(frozen=True)
class Limits:
    """What peers may ask of this node, and how patient it is."""

    message_bytes: int
    """Longest frame body that is accepted."""
    connect_seconds: float
    """How long a peer is looked for at first."""
    silence_seconds: float
    """How long a connection may stay broken, or a peer without progress."""
    work_seconds: float = math.inf
    """How long a peer's executor may work on one thing."""


@dataclass(frozen=True)
class Membership:
    """What makes a node one of a run."""

    node: int
    nodes: int
    """Of the run; they are numbered from 0."""
    secret: bytes | None
    """None: authentication is off."""
    run: RunIdentity = field(default_factory=RunIdentity)
