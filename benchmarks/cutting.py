"""`python -m benchmarks.cutting run ..`: skippipe, whose nodes cut the connections that they have opened if told to.

SIGUSR2 tells a node's process.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from typing import Any

from skippipe.__main__ import main
from skippipe.transport.links import Links
from skippipe.transport.streams import PeerStreams


def cut_when_told() -> None:
    """Patch this process, of which the launcher forks the nodes."""
    # Until a node can cut, being told so must not end it.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    start, introduce = Links.start, PeerStreams.introduce
    connections: list[socket.socket] = []

    def cut(*_: object) -> None:
        while connections:
            # Closed ones are no longer connected.
            with contextlib.suppress(OSError):
                connections.pop().shutdown(socket.SHUT_RDWR)

    def start_and_listen(links: Links) -> None:
        start(links)
        signal.signal(signal.SIGUSR2, cut)

    async def introduce_and_remember(streams: PeerStreams, connection: socket.socket, *rest: Any) -> Any:
        connected = await introduce(streams, connection, *rest)
        connections.append(connection)
        return connected

    Links.start, PeerStreams.introduce = start_and_listen, introduce_and_remember  # type: ignore[method-assign]


if __name__ == "__main__":
    cut_when_told()
    sys.exit(main(sys.argv[1:]))
