"""What a node sends to several peers in an all-reduce goes out in step: as fast to each as to the slowest.

All of them need as many bytes, and nobody is done before the last. Without it the connections through one uplink get
unequal parts of it; those that are ahead crowd the downlinks of their peers, while other uplinks stand idle
(benchmarks/results/collectives.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

from skippipe.transport.message import MessageKind, kind_of

IN_STEP = frozenset((MessageKind.SHARD, MessageKind.SUM))
STEP_BYTES = 1 << 16
"""What is written to one peer before the others get as much: steps of 512 KB took 4% longer at 100 Mbit/s."""

Write = Callable[[bytes | memoryview], Awaitable[None]]
"""Writes a record."""


class Steps:
    """How far each of the peers is to which something is being sent; knows no sockets and clocks."""

    def __init__(self) -> None:
        self.sent: dict[int, int] = {}
        """Bytes by peer."""

    def join(self, peer: int) -> None:
        """Something is to be sent to a peer, which begins beside the last of the others."""
        self.sent.setdefault(peer, min(self.sent.values(), default=0))

    def leave(self, peer: int) -> None:
        """Nothing more is to be sent to a peer, or nobody is to wait for it."""
        self.sent.pop(peer, None)

    def add(self, peer: int, count: int) -> None:
        """So many bytes were sent to a peer; whom the others left behind begins anew."""
        self.join(peer)
        self.sent[peer] += count

    def is_last(self, peer: int) -> bool:
        """Whether none of the others is behind a peer."""
        return self.sent.get(peer, 0) <= min(self.sent.values(), default=0)

    def leave_last(self) -> None:
        """Go on without the last ones."""
        least = min(self.sent.values(), default=0)
        self.sent = {peer: count for peer, count in self.sent.items() if count > least}


class InStep:
    """Lets a node's connections write in step; used in the event loop."""

    def __init__(self, patience: float) -> None:
        """Peers that have taken nothing for `patience` seconds are not waited for until they take something again."""
        self.patience = patience
        self.steps = Steps()
        self.moved = asyncio.Event()
        """Of those who wait now."""

    @contextlib.contextmanager
    def writer(self, peer: int, connection: socket.socket, header: bytes) -> Iterator[Write]:
        """What writes the records of a frame to a peer, a message's header being its first bytes."""
        if kind_of(header) not in IN_STEP:
            yield partial(asyncio.get_running_loop().sock_sendall, connection)
            return
        # Else megabytes would lie in the socket, and it would ask for more only when a third of them has left.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, STEP_BYTES)
        self.steps.join(peer)
        try:
            yield partial(self.write, peer, connection)
        finally:
            self.steps.leave(peer)
            self.move()

    def move(self) -> None:
        """Let all look whether it is their turn."""
        self.moved.set()
        self.moved = asyncio.Event()

    async def write(self, peer: int, connection: socket.socket, record: bytes | memoryview) -> None:
        """Write a record step by step."""
        loop = asyncio.get_running_loop()
        for begin in range(0, len(record), STEP_BYTES):
            while not self.steps.is_last(peer):
                await self.wait()
            step = record[begin : begin + STEP_BYTES]
            await loop.sock_sendall(connection, step)
            self.steps.add(peer, len(step))
            self.move()

    async def wait(self) -> None:
        """Until another peer has taken a step; those whom all wait for in vain are left behind."""
        try:
            async with asyncio.timeout(self.patience):
                await self.moved.wait()
        except TimeoutError:
            self.steps.leave_last()
