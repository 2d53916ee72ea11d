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
FAST = 200e6
"""Bytes a second of all peers together beyond which it is not the links that limit, and steps only cost."""
WINDOW_SECONDS = 0.1
"""How long the speed is measured for."""
STEP_SECONDS, LEAST_STEP_BYTES, MOST_STEP_BYTES = 0.002, 1 << 16, 1 << 18
"""What is written to one peer before the others get as much: what all take in so long."""

Write = Callable[[bytes | memoryview], Awaitable[None]]
"""Writes a record."""


class Speed:
    """How fast peers take what is sent to them together; is told of times, which are seconds of any one clock."""

    def __init__(self) -> None:
        self.step: int | None = None
        """Bytes of a step, if the links are slow; they are not known to be at first."""
        self.at = self.seconds = 0.0
        self.bytes = 0

    def begin(self, now: float) -> None:
        """Nothing was to be sent before."""
        self.at = now

    def wrote(self, count: int, now: float) -> None:
        """So many bytes were taken."""
        self.bytes += count
        self.seconds += now - self.at
        self.at = now
        if self.seconds >= WINDOW_SECONDS:
            speed = self.bytes / self.seconds
            step = int(min(max(speed * STEP_SECONDS, LEAST_STEP_BYTES), MOST_STEP_BYTES))
            self.step = step if speed < FAST else None
            self.bytes, self.seconds = 0, 0.0


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
    """Lets a node's connections write in step while links are slow; used in the event loop."""

    def __init__(self, patience: float) -> None:
        """Peers that have taken nothing for `patience` seconds are not waited for until they take something again."""
        self.patience = patience
        self.steps = Steps()
        self.speed = Speed()
        self.moved = asyncio.Event()
        """Of those who wait now."""

    @contextlib.contextmanager
    def writer(self, peer: int, connection: socket.socket, header: bytes) -> Iterator[Write]:
        """What writes the records of a frame to a peer, a message's header being its first bytes."""
        loop = asyncio.get_running_loop()
        if kind_of(header) not in IN_STEP:
            yield partial(loop.sock_sendall, connection)
            return
        # Else megabytes would lie in the socket, and it would ask for more only when a third of them has left.
        # 0 is the system's default.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, self.speed.step or 0)
        if not self.steps.sent:
            self.speed.begin(loop.time())
        self.steps.join(peer)
        try:
            yield partial(self.write, peer, connection)
        finally:
            self.steps.leave(peer)
            self.move()

    def move(self) -> None:
        """Let all who wait look whether it is their turn."""
        self.moved.set()
        self.moved = asyncio.Event()

    async def write(self, peer: int, connection: socket.socket, record: bytes | memoryview) -> None:
        """Write a record, step by step if links are slow."""
        loop = asyncio.get_running_loop()
        size = self.speed.step or len(record)
        for begin in range(0, len(record), size):
            while self.speed.step and not self.steps.is_last(peer):
                await self.wait()
            step = record[begin : begin + size]
            await loop.sock_sendall(connection, step)
            self.speed.wrote(len(step), loop.time())
            self.steps.add(peer, len(step))
            self.move()

    async def wait(self) -> None:
        """Until another peer has taken a step; those whom all wait for in vain are left behind."""
        try:
            async with asyncio.timeout(self.patience):
                await self.moved.wait()
        except TimeoutError:
            self.steps.leave_last()
