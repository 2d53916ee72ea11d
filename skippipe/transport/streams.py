"""DecCom's stream protocol over fast sockets: connects, accepts, and delivers every frame once and in order.

Each node opens one connection to every peer that it sends to; what comes back on it are acknowledgements. After a
broken connection the accepting end says how far it got, and the sender goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from functools import partial

from deccom.protocols.streamprotocol import StreamProtocol

from skippipe.transport.addresses import Address, Neighbourhood, family_of, shown_address
from skippipe.transport.clocks import ClockOffset
from skippipe.transport.connected import Connected, RefusedError, Surroundings
from skippipe.transport.conversation import Conversation, Handlers, Neighbour
from skippipe.transport.discovery import Discovery
from skippipe.transport.framing import STATE, refusal, unpack_refusal, unpack_state
from skippipe.transport.guests import BoundedLog, Door
from skippipe.transport.handshake import (
    ANSWER_BYTES,
    OPENING_BYTES,
    PROOF_BYTES,
    SESSION_BYTES,
    ClientHandshake,
    Introduction,
    ServerHandshake,
)
from skippipe.transport.hosting import serve_newcomer
from skippipe.transport.identity import KEY_BYTES, AuthenticationError, node_id
from skippipe.transport.invitation import NEWCOMER, Desk, UnintelligibleError, is_newcomer
from skippipe.transport.message import MalformedMessageError
from skippipe.transport.records import RecordKind, Session
from skippipe.transport.run_identity import RunIdentity
from skippipe.transport.sockets import SocketReader, receive, receive_record, send_at_once

logger = logging.getLogger(__name__)

INTRODUCTION_SECONDS = 5.0
CONNECT_SECONDS = 5.0
ACCEPT_AGAIN_SECONDS = 0.2
FAREWELL_SECONDS = 1.0


class PeerStreams(StreamProtocol):  # type: ignore[misc]
    """The stream layer of the DecCom stack."""

    def __init__(
        self,
        discovery: Discovery,
        secret: bytes | None,
        run: RunIdentity,
        most_bytes: int,
        handlers: Handlers,
        around: Surroundings,
        neighbourhood: Neighbourhood,
        desk: Desk | None = None,
    ) -> None:
        """Frames have bodies of at most `most_bytes`; if machines are invited, the `desk` is there for them."""
        super().__init__(False)
        self.way = neighbourhood.way
        self.discovery = discovery
        self.secret = secret
        self.run = run
        self.most_bytes = most_bytes
        self.handlers = handlers
        self.around = around
        self.desk = desk
        self.session = os.urandom(SESSION_BYTES)
        self.neighbours: dict[bytes, Neighbour] = {}
        """By node id; those that have connected to us."""
        self.server_sessions: dict[bytes, bytes] = {}
        """By node id; those that we have connected to."""
        self.starting = {node_id(node) for node in neighbourhood.places}
        """Node ids of those that start together with us: their sockets are there before they answer."""
        self.replaceable = discovery.replaceable
        self.comes_later = False
        """Whether this process joins the others, who may know another address of its node."""
        self.door: Door[asyncio.Task[None]] = Door(len(discovery.members))
        self.log = BoundedLog(logger)
        self.tasks: set[asyncio.Task[None]] = set()
        self.set_lower(discovery)

    def wire_now(self) -> float:
        """Our wire clock."""
        return self.around.clock.wire(self.around.clock.now())

    def introduction(self) -> Introduction:
        """What we say of ourselves in a handshake."""
        return Introduction(self.peer.id_node, self.session, self.run, self.around.clock.identity)

    async def connect(self, identity: bytes, deadline: float, offset: ClockOffset) -> Connected:
        """Find a peer by `deadline` (loop time), connect, and sample the clocks' offset.

        Raises PeerNotFoundError, OSError, TimeoutError, AuthenticationError, or RefusedError if the peer refuses us.
        """
        loop = asyncio.get_running_loop()
        peer = await self.discovery.look_up(identity, deadline)
        if self.comes_later:
            await self.discovery.introduce_to_peer(peer)
        host, port = self.way((peer.addr[0], peer.tcp))
        connection = socket.socket(family_of(host), socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            may_start = identity in self.starting and not self.around.trains
            async with asyncio.timeout_at(deadline if may_start else loop.time() + CONNECT_SECONDS):
                await loop.sock_connect(connection, (host, port))
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connected = await self.introduce(connection, identity, offset)
            self.starting.discard(identity)
            return connected
        except BaseException:
            connection.close()
            raise

    async def introduce(self, connection: socket.socket, identity: bytes, offset: ClockOffset) -> Connected:
        """The connecting end of the handshake."""
        loop = asyncio.get_running_loop()
        handshake = ClientHandshake(self.introduction(), identity, self.secret)
        sent = self.wire_now()
        await loop.sock_sendall(connection, handshake.opening())
        theirs = handshake.answered(await receive(connection, ANSWER_BYTES))
        if handshake.same_clock:
            offset.same_clock()
        offset.sample(sent, theirs, self.wire_now())
        proof, session = handshake.prove(offset.seconds, offset.error)
        await loop.sock_sendall(connection, proof)
        known = self.server_sessions.setdefault(identity, handshake.server_session)
        is_another = known != handshake.server_session
        if is_another and identity not in self.replaceable:
            raise RefusedError("another process has taken its place")
        delivered, partial = await first_record(connection, session)
        self.server_sessions[identity] = handshake.server_session
        return Connected(connection, session, delivered, partial, is_another)

    async def serve(self, listener: socket.socket) -> None:
        """Accept connections until cancelled, whatever comes."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(listener)
            except OSError as error:
                # Out of file descriptors or memory: a guest may give its own back; peers try again.
                self.log.warning("can't accept a connection (%s); going on", error.strerror or error)
                self.evict(self.door.oldest())
                await asyncio.sleep(ACCEPT_AGAIN_SECONDS)
                continue
            task = asyncio.create_task(self.serve_connection(connection, address))
            self.evict(self.door.arrive(task, address[0]))
            self.tasks.add(task)
            task.add_done_callback(self.forget)

    def forget(self, task: asyncio.Task[None]) -> None:
        """A connection has ended; that of an evicted guest may not even have begun."""
        self.door.leave(task)
        self.tasks.discard(task)

    def evict(self, guest: asyncio.Task[None] | None) -> None:
        """Close the connection of a guest."""
        if guest is not None:
            self.door.leave(guest)
            guest.cancel()

    async def serve_connection(self, connection: socket.socket, address: Address) -> None:
        """Introduce, then receive frames until the connection ends; whatever goes wrong ends only this connection."""
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            deadline = asyncio.get_running_loop().time() + INTRODUCTION_SECONDS
            async with asyncio.timeout_at(deadline):
                opening = await receive(connection, OPENING_BYTES)
            if self.desk is not None and self.secret is not None and is_newcomer(opening):
                verified = partial(self.let_in, NEWCOMER, opening)
                await serve_newcomer(connection, opening, self.desk, self.secret, self.neighbours, verified, self.trust)
                return
            async with asyncio.timeout_at(deadline):
                identity, neighbour, session = await self.welcome(connection, opening)
            self.trust()
            await self.receive_frames(connection, identity, neighbour, session)
        except (AuthenticationError, MalformedMessageError, UnintelligibleError) as error:
            self.log.warning("closed a connection from %s: %s", shown_address(address), error)
        except TimeoutError:
            self.log.warning("closed a connection from %s: it did not introduce itself", shown_address(address))
        except OSError as error:
            logger.debug("connection from %s ended: %s", shown_address(address), error)
        finally:
            connection.close()

    def let_in(self, identity: bytes, opening: bytes) -> None:
        """The opening of whoever this task serves verified; AuthenticationError if somebody has overheard it."""
        self.evict(self.door.call(current_task(), identity, opening[-KEY_BYTES:]))

    def trust(self) -> None:
        """Whoever this task serves has proved the secret."""
        self.door.leave(current_task())

    async def welcome(self, connection: socket.socket, opening: bytes) -> tuple[bytes, Neighbour, Session]:
        """The accepting end of the handshake, from OPENING_BYTES on; AuthenticationError for a stranger."""
        loop = asyncio.get_running_loop()
        handshake = ServerHandshake(self.introduction(), self.secret)
        answer = handshake.answer(opening, self.wire_now())
        if handshake.client not in self.discovery.members:
            raise AuthenticationError("it is no node of this run")
        self.let_in(handshake.client, opening)
        await loop.sock_sendall(connection, answer)
        session = handshake.proved(await receive(connection, PROOF_BYTES))
        neighbour = self.neighbours.setdefault(handshake.client, Neighbour(handshake.client_session))
        is_another = neighbour.session != handshake.client_session
        if is_another and handshake.client not in self.replaceable:
            reason = "this node is part of the run already; does another launcher run it under the same name?"
            await self.say_no(connection, session, 0, reason)
            raise AuthenticationError("its node is part of the run already, as another process")
        if neighbour.reader is not None:
            # The peer connects again because it lost the other one, even if we have not noticed.
            neighbour.reader.stop(ConnectionError("replaced by a newer connection"))
        if is_another:
            neighbour = self.neighbours[handshake.client] = Neighbour(handshake.client_session)
        neighbour.reader, neighbour.offset = None, handshake.offset
        incoming = neighbour.incoming
        state = STATE.pack(incoming.delivered, incoming.filled)
        await loop.sock_sendall(connection, session.sealer.seal(RecordKind.STATE, state))
        return handshake.client, neighbour, session

    async def receive_frames(
        self, connection: socket.socket, identity: bytes, neighbour: Neighbour, session: Session
    ) -> None:
        """Deliver frames in order, each once, and acknowledge them, until the connection ends (raises why)."""
        conversation = Conversation(
            connection, identity, neighbour, session, self.most_bytes, self.handlers, self.around
        )
        reader = SocketReader(connection, conversation.receiver.stream, conversation.acknowledge_progress)
        neighbour.reader = reader
        try:
            await reader.ended
        except MalformedMessageError as error:
            sequence = neighbour.incoming.delivered + 1
            neighbour.incoming.forget_part()
            if neighbour.refusals.another(sequence):
                self.handlers.refuse(identity, str(error))
            await self.say_no(connection, session, sequence, str(error))
            raise
        finally:
            reader.close()
            conversation.close()
            if neighbour.reader is reader:
                neighbour.reader = None

    async def say_no(self, connection: socket.socket, session: Session, sequence: int, reason: str) -> None:
        """Refuse a frame or the connection, and wait for the peer to close it: closed at once, it might not hear."""
        send_at_once(connection, session.sealer.seal(RecordKind.REFUSED, refusal(sequence, reason)))
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                while await asyncio.get_running_loop().sock_recv(connection, 1 << 16):
                    pass

    async def stop(self) -> None:
        """Close every connection that was accepted."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await super().stop()


def current_task() -> asyncio.Task[None]:
    """The task that this runs in, which serves a connection."""
    task = asyncio.current_task()
    assert task is not None
    return task


async def first_record(connection: socket.socket, session: Session) -> tuple[int, int]:
    """How far the accepting end has our frames; RefusedError if it refuses the connection."""
    kind, head, sealed = await receive_record(connection)
    content = session.opener.open(head, sealed)
    if kind is RecordKind.REFUSED:
        raise RefusedError(unpack_refusal(content)[1])
    if kind is not RecordKind.STATE:
        raise MalformedMessageError(f"a record of kind {kind.name} instead of a state")
    return unpack_state(content)
