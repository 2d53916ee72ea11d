"""The receiving end of a connection: frames are read in the event loop's own callback, large bodies in place.

A callback that stays registered costs one wake-up a frame; loop.sock_recv_into registers and unregisters for each call,
which doubled the round trip of small messages (benchmarks/results/links.md).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from skippipe.runtime.buffers import BufferPool
from skippipe.runtime.frames import FRAME
from skippipe.runtime.identity import TAGS_BYTES, Session
from skippipe.runtime.wire import HEADER, MalformedMessageError

STAGING_BYTES = 1 << 16
TURN_BYTES = 1 << 23
"""What one connection may read before the others get their turn."""
START_BYTES = FRAME.size + TAGS_BYTES

TakeFrame = Callable[[int, NDArray[np.uint8]], None]


class Reader:
    """Calls `receive` whenever a socket has bytes, until it raises; `ended` then holds why."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self.loop.create_future()
        self.loop.add_reader(connection, self.on_readable)

    def on_readable(self) -> None:
        """The socket has bytes, or was closed."""
        try:
            self.receive()
        except (BlockingIOError, InterruptedError):
            return
        except Exception as error:
            self.close()
            if not self.ended.done():
                self.ended.set_exception(error)

    def receive(self) -> None:
        """Take what is there."""
        raise AssertionError("a subclass takes the bytes")

    def receive_into(self, view: memoryview) -> int:
        """Some bytes from the socket; BlockingIOError where there are none, ConnectionError where none will come."""
        count = self.connection.recv_into(view)
        if count == 0:
            raise ConnectionError("closed by the other end")
        return count

    def close(self) -> None:
        """Stop reading."""
        if self.connection.fileno() >= 0:
            self.loop.remove_reader(self.connection)


class FrameReader(Reader):
    """Reads a connection's frames, checks their tags and lengths, and hands on sequence number and body."""

    def __init__(
        self, connection: socket.socket, session: Session, most_bytes: int, buffers: BufferPool, take: TakeFrame
    ) -> None:
        """`take` gets each frame; what it raises ends the connection. A body longer than `most_bytes` does too."""
        self.session = session
        self.most_bytes = most_bytes
        self.buffers = buffers
        self.take = take
        self.staging = memoryview(bytearray(STAGING_BYTES))
        self.begin = self.end = 0
        self.start = b""
        self.body: NDArray[np.uint8] | None = None
        self.filled = 0
        super().__init__(connection)

    def receive(self) -> None:
        """Read until the socket is empty or the turn is over."""
        turn = 0
        while turn < TURN_BYTES:
            if self.body is not None:
                view = self.body.data[self.filled :]
                count = self.receive_into(view)
                self.filled += count
                if self.filled == len(self.body):
                    self.finish_frame()
            else:
                view = self.staging[self.end :]
                count = self.receive_into(view)
                self.end += count
                self.parse()
            if count < len(view):
                return
            turn += count

    def parse(self) -> None:
        """Take the frames apart that begin in the staging buffer."""
        while self.body is None and self.end - self.begin >= START_BYTES:
            self.start = bytes(self.staging[self.begin : self.begin + START_BYTES])
            self.begin += START_BYTES
            _, length = FRAME.unpack_from(self.start)
            if length > self.most_bytes or 0 < length < HEADER.size:
                raise MalformedMessageError(f"a frame of {length} bytes, expected at most {self.most_bytes}")
            self.body = self.buffers.take(length)
            self.filled = min(length, self.end - self.begin)
            self.body.data[: self.filled] = self.staging[self.begin : self.begin + self.filled]
            self.begin += self.filled
            if self.filled == length:
                self.finish_frame()
        left = bytes(self.staging[self.begin : self.end])
        self.staging[: len(left)] = left
        self.begin, self.end = 0, len(left)

    def finish_frame(self) -> None:
        """The frame is whole: check it and hand it on."""
        body, self.body = self.body, None
        assert body is not None
        sequence, _ = FRAME.unpack_from(self.start)
        head = self.start[: FRAME.size] + body[: HEADER.size].tobytes()
        self.session.verify(head, body.data[HEADER.size :], self.start[FRAME.size :])
        self.take(sequence, body)


class AcknowledgementReader(Reader):
    """Reads what comes back on a connection: fixed-size acknowledgements."""

    def __init__(self, connection: socket.socket, size: int, take: Callable[[bytes], None]) -> None:
        self.size = size
        self.take = take
        self.staging = memoryview(bytearray(STAGING_BYTES))
        self.end = 0
        super().__init__(connection)

    def receive(self) -> None:
        """Hand on the newest whole acknowledgement: it stands for all before it."""
        self.end += self.receive_into(self.staging[self.end :])
        whole = self.end - self.end % self.size
        if whole:
            self.take(bytes(self.staging[whole - self.size : whole]))
            left = bytes(self.staging[whole : self.end])
            self.staging[: len(left)] = left
            self.end = len(left)
