"""Serves a newcomer on its connection, as invitation.py says, for as long as the newcomer stays."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Container

from skippipe.transport.connected import RefusedError
from skippipe.transport.handshake import PROOF_BYTES
from skippipe.transport.invitation import Desk, HostEnd
from skippipe.transport.sockets import receive, receive_record

ANSWER_SECONDS = 5.0
"""For the newcomer's proof, and for its request."""
LOOK_SECONDS = 60.0
"""For looking at the document, which includes the user's disk; and for each part of a file, however slow the link."""
IDLE_SECONDS, PROBE_SECONDS, PROBES = 10, 5, 3
"""A newcomer whose machine is gone is found out after 25 s, by TCP itself."""


async def serve_newcomer(
    connection: socket.socket,
    opening: bytes,
    desk: Desk,
    secret: bytes,
    present: Container[bytes],
    verified: Callable[[], None],
    proved: Callable[[], None],
) -> None:
    """Tell a newcomer, whose first message is `opening`, what it needs, until it goes.

    `verified` once that message shows that somebody holds the secret, `proved` once it is this newcomer.
    Raises AuthenticationError, UnintelligibleError, TimeoutError, OSError for what ends the connection.
    """
    loop = asyncio.get_running_loop()
    end = HostEnd(desk, secret, present)
    keep_alive(connection)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = end.answer(opening)
            verified()
            await loop.sock_sendall(connection, answer)
            end.proved(await receive(connection, PROOF_BYTES))
            proved()
            request = await receive_record(connection)
            try:
                offer = end.offer(*request)
            except RefusedError as error:
                await say_no(connection, end.refusal(str(error)))
                return
            await loop.sock_sendall(connection, offer)
        async with asyncio.timeout(LOOK_SECONDS):
            wish = await receive_record(connection)
        for record in end.deliver(*wish):
            async with asyncio.timeout(LOOK_SECONDS):
                await loop.sock_sendall(connection, record)
        # It says nothing more: the nodes are kept for it until it closes.
        await loop.sock_recv(connection, 1)
    finally:
        end.leave()


async def say_no(connection: socket.socket, refusal: bytes) -> None:
    """Refuse, and wait until the newcomer closes: closed at once, it might not hear."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, refusal)
    connection.shutdown(socket.SHUT_WR)
    await loop.sock_recv(connection, 1)


def keep_alive(connection: socket.socket) -> None:
    """Let TCP probe the other end, so that a machine that is gone is noticed."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
