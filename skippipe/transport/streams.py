"""DecCom's stream protocol over fast sockets: connects, accepts, and delivers every frame once and in order.

Each node opens one connection to every peer that it sends to; what comes back on it are acknowledgements. After a
broken connection the accepting end says how far it got, and the sender goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from deccom.protocols.streamprotocol import StreamProtocol
from numpy.typing import NDArray

from skippipe.transport.buffers import BufferPool
from skippipe.transport.discovery import Discovery
from skippipe.transport.framing import (
    ACKNOWLEDGEMENT_BYTES,
    FrameReader,
    acknowledgement,
    check_acknowledgement,
    receive,
    send_at_once,
    shut_down,
)
from skippipe.transport.identity import (
    NONCE_BYTES,
    PROOF_BYTES,
    AuthenticationError,
    Handshake,
    Session,
)
from skippipe.transport.message import MalformedMessageError

logger = logging.getLogger(__name__)

MAGIC = b"SKIPPIPE"
SESSION_BYTES = 16
HELLO_BYTES = len(MAGIC) + 32 + SESSION_BYTES + NONCE_BYTES
INTRODUCTION_SECONDS = 5.0
CONNECT_SECONDS = 5.0
MOST_STRANGERS = 64
ACKNOWLEDGE_SECONDS = 0.02
PROMPT_BYTES = 1 << 16
"""Larger frames are acknowledged at once: the sender keeps their memory until then."""

Address = tuple[str, int]
Deliver = Callable[[NDArray[np.uint8]], None]


@dataclass
class Incoming:
    """How far a peer's frames were delivered; kept across its connections."""

    session: bytes = b""
    delivered: int = 0
    connection: socket.socket | None = field(default=None, repr=False)


class PeerStreams(StreamProtocol):  # type: ignore[misc]
    """The stream layer of the DecCom stack."""

    def __init__(self, discovery: Discovery, secret: bytes | None, most_bytes: int, deliver: Deliver) -> None:
        """`deliver` gets the body, at most `most_bytes` long, of each frame once.

        MalformedMessageError from it closes the connection.
        """
        super().__init__(False)
        self.discovery = discovery
        self.secret = secret
        self.most_bytes = most_bytes
        self.deliver = deliver
        self.session_name = os.urandom(SESSION_BYTES)
        self.incoming: dict[bytes, Incoming] = {}
        self.buffers = BufferPool()
        self.strangers = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self.set_lower(discovery)

    async def connect(self, identity: bytes, deadline: float) -> tuple[socket.socket, Session, int]:
        """Find a peer by `deadline` (loop time) and connect: the socket, its session, the last frame it has of us.

        Raises PeerNotFoundError, OSError, TimeoutError or AuthenticationError.
        """
        loop = asyncio.get_running_loop()
        peer = await self.discovery.look_up(identity, deadline)
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            async with asyncio.timeout(CONNECT_SECONDS):
                await loop.sock_connect(connection, (peer.addr[0], peer.tcp))
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                mine = os.urandom(NONCE_BYTES)
                await loop.sock_sendall(connection, MAGIC + self.peer.id_node + self.session_name + mine)
                answer = await receive(connection, NONCE_BYTES + PROOF_BYTES)
                handshake = Handshake(self.peer.id_node, identity, mine, answer[:NONCE_BYTES])
                if self.secret is not None:
                    handshake.check(self.secret, b"server", answer[NONCE_BYTES:])
                await loop.sock_sendall(connection, handshake.proof(self.secret or b"", b"client"))
                session = handshake.session(self.secret)
                delivered = check_acknowledgement(await receive(connection, ACKNOWLEDGEMENT_BYTES), session)
        except BaseException:
            connection.close()
            raise
        return connection, session, delivered

    async def serve(self, listener: socket.socket) -> None:
        """Accept connections until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            connection, address = await loop.sock_accept(listener)
            if self.strangers >= MOST_STRANGERS:
                connection.close()
                continue
            task = asyncio.create_task(self.serve_connection(connection, address))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def serve_connection(self, connection: socket.socket, address: Address) -> None:
        """Introduce, then receive frames until the connection ends; whatever goes wrong ends only this connection."""
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.strangers += 1
            try:
                async with asyncio.timeout(INTRODUCTION_SECONDS):
                    incoming, session = await self.welcome(connection)
            finally:
                self.strangers -= 1
            await self.receive_frames(connection, incoming, session)
        except (AuthenticationError, MalformedMessageError) as error:
            logger.warning("closed a connection from %s:%d: %s", *address[:2], error)
        except TimeoutError:
            logger.warning("closed a connection from %s:%d: it did not introduce itself", *address[:2])
        except OSError as error:
            logger.debug("connection from %s:%d ended: %s", *address[:2], error)
        finally:
            connection.close()

    async def welcome(self, connection: socket.socket) -> tuple[Incoming, Session]:
        """The accepting end of the handshake; AuthenticationError for a stranger."""
        loop = asyncio.get_running_loop()
        hello = await receive(connection, HELLO_BYTES)
        if not hello.startswith(MAGIC):
            raise AuthenticationError("it does not speak our protocol")
        client, rest = hello[len(MAGIC) : len(MAGIC) + 32], hello[len(MAGIC) + 32 :]
        session_name, theirs = rest[:SESSION_BYTES], rest[SESSION_BYTES:]
        if client not in self.discovery.members:
            raise AuthenticationError("it is no node of this run")
        handshake = Handshake(client, self.peer.id_node, theirs, os.urandom(NONCE_BYTES))
        await loop.sock_sendall(connection, handshake.server_nonce + handshake.proof(self.secret or b"", b"server"))
        proof = await receive(connection, PROOF_BYTES)
        if self.secret is not None:
            handshake.check(self.secret, b"client", proof)
        session = handshake.session(self.secret)
        incoming = self.incoming.setdefault(client, Incoming())
        if incoming.session != session_name:
            incoming.session, incoming.delivered = session_name, 0
        if incoming.connection is not None:
            # The peer connects again because it lost this one, even if we have not noticed; wake its reader.
            shut_down(incoming.connection)
        incoming.connection = connection
        await loop.sock_sendall(connection, acknowledgement(incoming.delivered, session))
        return incoming, session

    async def receive_frames(self, connection: socket.socket, incoming: Incoming, session: Session) -> None:
        """Deliver frames in order, each once, and acknowledge them, until the connection ends (raises why)."""
        loop = asyncio.get_running_loop()
        owed: asyncio.TimerHandle | None = None

        def acknowledge() -> None:
            nonlocal owed
            if owed is not None:
                owed.cancel()
                owed = None
            send_at_once(connection, acknowledgement(incoming.delivered, session))

        def take(sequence: int, body: NDArray[np.uint8]) -> None:
            nonlocal owed
            if incoming.connection is not connection:
                raise ConnectionError("replaced by a newer connection")
            if len(body) and sequence > incoming.delivered:
                if sequence != incoming.delivered + 1:
                    raise MalformedMessageError(f"frame {sequence} after frame {incoming.delivered}")
                self.deliver(body)
                incoming.delivered = sequence
            # One acknowledgement serves many small frames; the sender waits for none of them.
            if len(body) > PROMPT_BYTES:
                acknowledge()
            elif owed is None:
                owed = loop.call_later(ACKNOWLEDGE_SECONDS, acknowledge)

        reader = FrameReader(connection, session, self.most_bytes, self.buffers, take)
        try:
            await reader.ended
        finally:
            reader.close()
            if owed is not None:
                owed.cancel()

    async def stop(self) -> None:
        """Close every connection that was accepted."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await super().stop()
