"""Calls: one connection between processes that are no peers, with whole messages both ways, sealed as links are.

The doctor asks other machines so, and checkpoints travel so to whoever gathers them.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from skippipe.transport.addresses import Address, family_of, network_of
from skippipe.transport.clocks import Clock, ClockOffset
from skippipe.transport.guests import MOST_OF_A_NETWORK, MOST_STRANGERS, BoundedLog, Guests
from skippipe.transport.handshake import (
    ANSWER_BYTES,
    OPENING_BYTES,
    PROOF_BYTES,
    SESSION_BYTES,
    ClientHandshake,
    Introduction,
    ServerHandshake,
)
from skippipe.transport.identity import AuthenticationError, WrongSecretError
from skippipe.transport.records import PART_BYTES, RecordKind, Session
from skippipe.transport.run_identity import RunIdentity
from skippipe.transport.sockets import receive, receive_record

logger = logging.getLogger(__name__)

INTRODUCTION_SECONDS = 5.0
SILENCE_SECONDS = 30.0
"""How long the next record of a message may take."""
ACCEPT_AGAIN_SECONDS = 0.2


def reason_of(error: Exception) -> str:
    """Why a call did not come about or broke, in words."""
    system = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else ""
    return system or str(error) or "no answer in time"


class Service:
    """What a call is about; both ends must mean the same, and hold the same secret."""

    def __init__(self, name: str, secret: bytes | None) -> None:
        """No node bears this identity, so no node of a run takes a call for a peer."""
        self.name = name
        self.identity = hashlib.blake2b(name.encode(), digest_size=32, person=b"skippipe service").digest()
        self.run = RunIdentity({name: "1"})
        self.secret = secret
        self.session = os.urandom(SESSION_BYTES)
        self.clock = Clock()

    def introduction(self) -> Introduction:
        """What either end says of itself."""
        return Introduction(self.identity, self.session, self.run, self.clock.identity)


class Call:
    """A connection past its handshake. A message is any number of parts and the record that ends it."""

    def __init__(self, connection: socket.socket, session: Session) -> None:
        self.connection = connection
        self.session = session
        self.loop = asyncio.get_running_loop()

    async def send(self, *parts: bytes) -> None:
        """Send a message."""
        await self.send_parts(parts)

    async def send_parts(self, parts: Iterable[bytes]) -> None:
        """Send a message of parts, each of which is read only when it is sent, and has PART_BYTES at most."""
        for part in parts:
            assert len(part) <= PART_BYTES
            await self.loop.sock_sendall(self.connection, self.session.sealer.seal(RecordKind.PART, part))
        await self.loop.sock_sendall(self.connection, self.session.sealer.seal(RecordKind.FRAME, b""))

    async def receive(self, most: int) -> bytes:
        """The next message; ConnectionError if it has more than `most` bytes, or does not come."""
        whole = b""
        async for part in self.receive_parts():
            whole += part
            if len(whole) > most:
                raise ConnectionError(f"a message of more than {most} bytes")
        return whole

    async def receive_parts(self) -> AsyncIterator[bytes]:
        """The parts of the next message as they come; OSError or AuthenticationError if its end does not."""
        while True:
            async with asyncio.timeout(SILENCE_SECONDS):
                kind, head, sealed = await receive_record(self.connection)
            content = self.session.opener.open(head, sealed)
            if kind is RecordKind.FRAME:
                return
            if kind is not RecordKind.PART:
                raise ConnectionError(f"a record of kind {kind.name} in a call")
            yield content

    def close(self) -> None:
        """Hang up."""
        self.connection.close()


async def call(address: Address, service: Service, seconds: float = INTRODUCTION_SECONDS) -> Call:
    """Call somebody who answers for the same service; OSError, or AuthenticationError if nobody does."""
    connection = await connect(address, seconds)
    try:
        async with asyncio.timeout(seconds):
            handshake = ClientHandshake(service.introduction(), service.identity, service.secret)
            offset, sent = ClockOffset(), service.clock.since_boot()
            theirs = await opened(connection, handshake)
            offset.sample(sent, theirs, service.clock.since_boot())
            proof, session = handshake.prove(offset.seconds, offset.error)
            await asyncio.get_running_loop().sock_sendall(connection, proof)
        return Call(connection, session)
    except BaseException:
        connection.close()
        raise


async def knock(address: Address, me: Introduction, node: bytes, secret: bytes | None) -> None:
    """See whether a node of a run answers, without becoming its peer: the handshake is left before this end proves it.

    `node` is the id of the node, `me` says which run it is of. OSError, or AuthenticationError if it does not answer.
    """
    connection = await connect(address, INTRODUCTION_SECONDS)
    try:
        async with asyncio.timeout(INTRODUCTION_SECONDS):
            await opened(connection, ClientHandshake(me, node, secret))
    finally:
        connection.close()


async def connect(address: Address, seconds: float) -> socket.socket:
    """A connection; OSError, of which TimeoutError is one."""
    connection = socket.socket(family_of(address[0]), socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_connect(connection, address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        connection.close()
        raise
    return connection


async def opened(connection: socket.socket, handshake: ClientHandshake) -> float:
    """Exchange the first two messages of a handshake; the other end's wire time.

    WrongSecretError if it holds another secret: whoever does not like our opening closes without a word.
    """
    await asyncio.get_running_loop().sock_sendall(connection, handshake.opening())
    try:
        answer = await receive(connection, ANSWER_BYTES)
    except ConnectionError:
        raise WrongSecretError("it hangs up: it holds another secret, or is something else") from None
    return handshake.answered(answer)


async def answer(connection: socket.socket, service: Service) -> Call:
    """The end that is called; OSError, or AuthenticationError for a stranger."""
    loop = asyncio.get_running_loop()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    async with asyncio.timeout(INTRODUCTION_SECONDS):
        handshake = ServerHandshake(service.introduction(), service.secret)
        opening = await receive(connection, OPENING_BYTES)
        await loop.sock_sendall(connection, handshake.answer(opening, service.clock.since_boot()))
        return Call(connection, handshake.proved(await receive(connection, PROOF_BYTES)))


class Switchboard:
    """Answers calls, several at once; what goes wrong in one ends only that one."""

    def __init__(
        self,
        service: Service,
        take: Callable[[Call], Awaitable[None]],
        on_trouble: Callable[[Address, Exception], None],
    ) -> None:
        """`take` has a call until it returns; `on_trouble` is told who called and what went wrong."""
        self.service = service
        self.take = take
        self.on_trouble = on_trouble
        self.guests: Guests[asyncio.Task[None]] = Guests(MOST_STRANGERS, MOST_OF_A_NETWORK)
        """Callers that have not proved the secret."""
        self.log = BoundedLog(logger)

    async def serve(self, listener: socket.socket) -> None:
        """Answer at a listening socket, which must not block and stays open, until cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as calls:
            while True:
                try:
                    connection, address = await loop.sock_accept(listener)
                except OSError as error:
                    self.log.warning("can't accept a connection (%s); going on", error.strerror or error)
                    await asyncio.sleep(ACCEPT_AGAIN_SECONDS)
                    continue
                task = calls.create_task(self.take_one(connection, address))
                task.add_done_callback(self.guests.leave)
                leaving = self.guests.arrive(task, network_of(address[0]))
                if leaving is not None:
                    leaving.cancel()

    async def take_one(self, connection: socket.socket, address: Address) -> None:
        """Take one call."""
        try:
            made = await answer(connection, self.service)
            task = asyncio.current_task()
            assert task is not None
            self.guests.leave(task)
            await self.take(made)
        except (AuthenticationError, OSError) as error:
            self.on_trouble(address, error)
        finally:
            connection.close()
