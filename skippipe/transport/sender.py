"""The way to one peer: frames go in, a task connects, sends, and sends again what a broken connection lost."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Awaitable, Callable

from skippipe.transport.discovery import PeerNotFoundError
from skippipe.transport.framing import (
    ACKNOWLEDGEMENT_BYTES,
    FRAME,
    PART_BYTES,
    AcknowledgementReader,
    check_acknowledgement,
)
from skippipe.transport.identity import AuthenticationError, Session

logger = logging.getLogger(__name__)

SHORTEST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.05, 2.0
HEARTBEAT_SECONDS = 5.0
REFUSED_SECONDS = 5.0
ONE_WRITE_BYTES = 65536
"""Frames up to this size are joined into one write; larger ones are not worth the copy."""

Frame = tuple[int, bytes, memoryview]
"""Sequence number, message header, payload."""
HEARTBEAT: Frame = (0, b"", memoryview(b""))

Connect = Callable[[float], Awaitable[tuple[socket.socket, Session, int]]]
"""Finds the peer by a deadline (loop time) and connects: a socket, its session, the last frame that the peer has of us.

Raises PeerNotFoundError, AuthenticationError, or OSError, of which TimeoutError is one.
"""
ReportLost = Callable[[int, str], None]
"""Is told which node is lost, and why."""


class Sender:
    """Sends to one peer; made in the event loop, where all of it runs."""

    def __init__(
        self, node: int, connect: Connect, report_lost: ReportLost, connect_seconds: float, silence_seconds: float
    ) -> None:
        """The peer is given up if it can't be reached for `connect_seconds` at first, later for `silence_seconds`."""
        self.node = node
        self.connect = connect
        self.report_lost = report_lost
        self.connect_seconds = connect_seconds
        self.silence_seconds = silence_seconds
        self.name = f"node {node}"
        self.waiting: deque[Frame] = deque()
        self.unacknowledged: deque[Frame] = deque()
        self.sequence = 0
        self.left_over = b""
        """Bytes that must go to the socket before the next frame."""
        self.idle: tuple[socket.socket, Session] | None = None
        """The open connection, while nothing is being sent on it."""
        self.changed = asyncio.Event()
        self.connected = asyncio.Event()
        self.heard_at = asyncio.get_running_loop().time()
        self.retry_seconds = SHORTEST_RETRY_SECONDS
        self.task = asyncio.create_task(self.keep_going())

    def send(self, header: bytes, payload: memoryview) -> None:
        """Queue a message; its memory must stay as it is until the peer has acknowledged it."""
        self.sequence += 1
        frame = (self.sequence, header, payload)
        if self.idle is not None and len(payload) <= ONE_WRITE_BYTES:
            self.send_at_once(frame, *self.idle)
        else:
            # Whatever comes next must not overtake it.
            self.idle = None
            self.waiting.append(frame)
            self.changed.set()

    def send_at_once(self, frame: Frame, connection: socket.socket, session: Session) -> None:
        """Give a small frame to an idle connection's socket; what it does not take is left to the sending task."""
        self.unacknowledged.append(frame)
        data = frame_bytes(frame, session)
        try:
            sent = connection.send(data)
        except OSError:
            # Full or broken: the task will find out which.
            sent = 0
        if sent < len(data):
            self.idle = None
            self.left_over = data[sent:]
            self.changed.set()

    async def keep_going(self) -> None:
        """Connect and send until the peer is given up."""
        patience = self.connect_seconds
        loop = asyncio.get_running_loop()
        while True:
            deadline = self.heard_at + patience
            try:
                connection, session, delivered = await self.connect(deadline)
            except (OSError, AuthenticationError, PeerNotFoundError) as error:
                # A host that answers, but has nobody at a port that somebody had, says that the process is gone.
                refused = isinstance(error, ConnectionRefusedError) and self.connected.is_set()
                if loop.time() >= deadline or (refused and loop.time() - self.heard_at >= REFUSED_SECONDS):
                    self.give_up(error)
                    return
                await self.pause()
                continue
            self.resume_after(delivered)
            self.connected.set()
            patience = self.silence_seconds
            try:
                await self.exchange(connection, session)
            except (OSError, AuthenticationError) as error:
                if loop.time() >= self.heard_at + patience:
                    self.give_up(error)
                    return
                logger.warning("link to %s broke (%s); connecting again", self.name, error or type(error).__name__)
                await self.pause()
            finally:
                connection.close()

    def give_up(self, error: Exception) -> None:
        """Report the peer as lost."""
        silent = asyncio.get_running_loop().time() - self.heard_at
        reason = f"{type(error).__name__} {error}".strip()
        self.report_lost(self.node, f"{self.name} can't be reached for {silent:.0f} s ({reason})")

    async def pause(self) -> None:
        """Wait before the next attempt, longer each time until the peer is heard again."""
        await asyncio.sleep(self.retry_seconds)
        self.retry_seconds = min(2 * self.retry_seconds, LONGEST_RETRY_SECONDS)

    def resume_after(self, delivered: int) -> None:
        """Queue again what the peer has not got."""
        again = [frame for frame in self.unacknowledged if frame[0] > delivered]
        self.unacknowledged.clear()
        self.waiting.extendleft(reversed(again))

    async def exchange(self, connection: socket.socket, session: Session) -> None:
        """Send frames and read acknowledgements until the connection breaks (OSError, AuthenticationError)."""
        reader = AcknowledgementReader(
            connection, ACKNOWLEDGEMENT_BYTES, lambda data: self.forget(check_acknowledgement(data, session))
        )
        sending = asyncio.create_task(self.send_frames(connection, session))
        loop = asyncio.get_running_loop()
        self.heard_at = loop.time()
        try:
            while True:
                done, _ = await asyncio.wait(
                    (sending, reader.ended), timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                for ended in done:
                    ended.result()
                if loop.time() - self.heard_at > self.silence_seconds:
                    raise TimeoutError("silent, even to heartbeats")
        finally:
            reader.close()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    def forget(self, sequence: int) -> None:
        """The peer has every frame up to this one."""
        self.heard_at = asyncio.get_running_loop().time()
        self.retry_seconds = SHORTEST_RETRY_SECONDS
        while self.unacknowledged and self.unacknowledged[0][0] <= sequence:
            self.unacknowledged.popleft()

    async def send_frames(self, connection: socket.socket, session: Session) -> None:
        """Send what waits; a heartbeat if nothing does."""
        loop = asyncio.get_running_loop()
        self.left_over = b""
        while True:
            if self.left_over:
                data, self.left_over = self.left_over, b""
                await loop.sock_sendall(connection, data)
            elif self.waiting:
                frame = self.waiting.popleft()
                self.unacknowledged.append(frame)
                if len(frame[2]) <= ONE_WRITE_BYTES:
                    await loop.sock_sendall(connection, frame_bytes(frame, session))
                else:
                    await send_in_parts(frame, connection, session)
            else:
                await self.rest(connection, session)

    async def rest(self, connection: socket.socket, session: Session) -> None:
        """Wait for something to send; after a while, a heartbeat."""
        self.changed.clear()
        self.idle = connection, session
        try:
            # Not wait_for: before Python 3.12 it may swallow a cancellation.
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await self.changed.wait()
        except TimeoutError:
            if not self.left_over:
                self.left_over = frame_bytes(HEARTBEAT, session)
        finally:
            self.idle = None


def start_of(frame: Frame) -> bytes:
    """Everything of a frame before its payload."""
    sequence, header, payload = frame
    return FRAME.pack(sequence, len(header) + len(payload)) + header


def frame_bytes(frame: Frame, session: Session) -> bytes:
    """A small frame's bytes."""
    data = start_of(frame) + frame[2]
    return data + session.tag(data)


async def send_in_parts(frame: Frame, connection: socket.socket, session: Session) -> None:
    """Send a large frame, adding each part to its tag just before it goes."""
    loop = asyncio.get_running_loop()
    start, payload, tag = start_of(frame), frame[2], session.running_tag()
    tag.update(start)
    await loop.sock_sendall(connection, start)
    for begin in range(0, len(payload), PART_BYTES):
        part = payload[begin : begin + PART_BYTES]
        tag.update(part)
        await loop.sock_sendall(connection, part)
    await loop.sock_sendall(connection, tag.finish())
