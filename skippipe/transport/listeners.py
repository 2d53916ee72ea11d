"""A node's bound sockets, and where its peers reach them."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from skippipe.transport.addresses import LOOPBACK, Address, family_of

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
    def bind(cls, host: str, port: int = 0, advertised: Address | None = None) -> Listeners:
        """Bind both sockets, to `port` or to free ones; OSError if they are taken."""
        family = family_of(host)
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        streams = socket.socket(family, socket.SOCK_STREAM)
        try:
            datagrams.bind((host, port))
            streams.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            streams.bind((host, port))
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
    def stream_port(self) -> int:
        """The port at which peers connect to this node."""
        return self.advertised[1] if self.advertised else int(self.streams.getsockname()[1])

    def close(self) -> None:
        """Close both sockets."""
        self.datagrams.close()
        self.streams.close()
