"""Frames on a connection: FRAME, the body (a message's header and payload, message.py), then a tag (identity.py)."""

from __future__ import annotations

import asyncio
import hmac
import logging
import socket
import struct
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from skippipe.transport.buffers import BufferPool
from skippipe.transport.identity import TAG_BYTES, AuthenticationError, RunningTag, Session, check_tag
from skippipe.transport.message import HEADER, MalformedMessageError

logger = logging.getLogger(__name__)

FRAME = struct.Struct("<QQ")
"""Sequence number from 1, length of the body in bytes; an empty body is a heartbeat."""
SEQUENCE = struct.Struct("<Q")
PART_BYTES = 1 << 21
"""Large frames are tagged, sent and read in parts that the processor's cache holds; smaller ones cost more calls."""
STAGING_BYTES = 1 << 16
WAKE_BYTES = 1 << 16
"""A large frame wakes its reader for so many bytes or its rest; for each packet, that takes time from the compute."""
TURN_BYTES = 1 << 23
"""What one connection may read before the others get their turn."""

TakeFrame = Callable[[int, NDArray[np.uint8]], None]
ACKNOWLEDGEMENT_BYTES = SEQUENCE.size + TAG_BYTES


def acknowledgement(sequence: int, session: Session) -> bytes:
    """Bytes that acknowledge all frames up to `sequence`."""
    packed = SEQUENCE.pack(sequence)
    return packed + session.acknowledgement_tag(packed)


def check_acknowledgement(data: bytes, session: Session) -> int:
    """The sequence number that an acknowledgement stands for; AuthenticationError if it is not the peer's."""
    packed, tag = data[: SEQUENCE.size], data[SEQUENCE.size :]
    if not hmac.compare_digest(session.acknowledgement_tag(packed), tag):
        raise AuthenticationError("an acknowledgement's tag does not verify")
    (sequence,) = SEQUENCE.unpack(packed)
    return int(sequence)


def shut_down(connection: socket.socket) -> None:
    """Wake whoever reads from a socket of which the other end may be gone already."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        logger.debug("shutting down a connection: %s", error)


def send_at_once(connection: socket.socket, data: bytes) -> None:
    """Send a few bytes without waiting; if the socket takes only part of them, the connection is of no more use."""
    try:
        sent = connection.send(data)
    except OSError as error:
        logger.debug("acknowledging: %s", error)
        sent = 0
    if sent < len(data):
        shut_down(connection)


async def receive(connection: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes and no more; ConnectionError if the other end closes before."""
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        part = await loop.sock_recv(connection, size - len(data))
        if not part:
            raise ConnectionError("closed by the other end")
        data += part
    return data


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
        """Some bytes from the socket; BlockingIOError if there are none, ConnectionError if none will come."""
        count = self.connection.recv_into(view)
        if count == 0:
            raise ConnectionError("closed by the other end")
        return count

    def wake_for(self, count: int) -> None:
        """Don't call `receive` for fewer bytes than these."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

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
        self.staging = np.empty(STAGING_BYTES, dtype=np.uint8)
        self.begin = self.end = 0
        self.sequence = 0
        self.large: NDArray[np.uint8] | None = None
        """Body and tag of a frame that did not come at once, filled from the front."""
        self.filled = self.tagged = 0
        self.tag: RunningTag
        super().__init__(connection)

    def receive(self) -> None:
        """Read until the socket is empty or the turn is over."""
        turn = 0
        while turn < TURN_BYTES:
            if self.large is not None:
                view = self.large.data[self.filled : self.filled + PART_BYTES]
                count = self.receive_into(view)
                self.fill(self.large, count)
            else:
                view = self.staging.data[self.end :]
                count = self.receive_into(view)
                self.end += count
                self.parse()
            if count < len(view):
                return
            turn += count

    def parse(self) -> None:
        """Take the frames apart that begin in the staging buffer."""
        while self.large is None and self.end - self.begin >= FRAME.size:
            self.sequence, length = FRAME.unpack_from(self.staging.data, self.begin)
            if length > self.most_bytes or 0 < length < HEADER.size:
                raise MalformedMessageError(f"a frame of {length} bytes, expected at most {self.most_bytes}")
            body = self.begin + FRAME.size
            end = body + length
            if end + TAG_BYTES <= self.end:
                if self.session.key is not None:
                    tag = self.session.tag(self.staging.data[self.begin : end])
                    check_tag(tag, self.staging[end : end + TAG_BYTES].tobytes())
                self.begin = end + TAG_BYTES
                self.take(self.sequence, self.staging[body:end].copy())
            else:
                self.begin_large(length)
        left = self.end - self.begin
        if left and self.begin:
            self.staging[:left] = self.staging[self.begin : self.end].copy()
        self.begin, self.end = 0, left

    def begin_large(self, length: int) -> None:
        """The rest of the frame goes right to its place."""
        self.tag = self.session.running_tag()
        self.tag.update(self.staging.data[self.begin : self.begin + FRAME.size])
        came = self.staging[self.begin + FRAME.size : self.end]
        self.begin = self.end
        self.large = self.buffers.take(length + TAG_BYTES)
        self.large[: len(came)] = came
        self.filled = self.tagged = 0
        self.wake_for(WAKE_BYTES)
        self.fill(self.large, len(came))

    def fill(self, frame: NDArray[np.uint8], count: int) -> None:
        """So many more bytes of the large frame are there; once all are, check it and hand it on."""
        self.filled += count
        length = len(frame) - TAG_BYTES
        upto = min(self.filled, length)
        if upto > self.tagged:
            self.tag.update(frame.data[self.tagged : upto])
            self.tagged = upto
        if len(frame) - self.filled < WAKE_BYTES:
            self.wake_for(max(1, len(frame) - self.filled))
        if self.filled == len(frame):
            self.large = None
            if self.session.key is not None:
                check_tag(self.tag.finish(), frame[length:].tobytes())
            self.take(self.sequence, frame[:length])


class AcknowledgementReader(Reader):
    """Reads what comes back on a connection: fixed-size acknowledgements."""

    def __init__(self, connection: socket.socket, size: int, take: Callable[[bytes], None]) -> None:
        self.size = size
        self.take = take
        self.staging = memoryview(bytearray(STAGING_BYTES))
        self.end = 0
        super().__init__(connection)

    def receive(self) -> None:
        """Hand on the newest complete acknowledgement: it stands for all before it."""
        self.end += self.receive_into(self.staging[self.end :])
        complete = self.end - self.end % self.size
        if complete:
            self.take(bytes(self.staging[complete - self.size : complete]))
            left = bytes(self.staging[complete : self.end])
            self.staging[: len(left)] = left
            self.end = len(left)
