"""Frames on a connection: FRAME, its tags (identity.py), then the body, a message's header and payload (wire.py)."""

from __future__ import annotations

import asyncio
import hmac
import logging
import socket
import struct

from skippipe.runtime.identity import TAG_BYTES, AuthenticationError, Session

logger = logging.getLogger(__name__)

FRAME = struct.Struct("<QQ")
"""Sequence number from 1, length of the body in bytes; an empty body is a heartbeat."""
SEQUENCE = struct.Struct("<Q")
ACKNOWLEDGEMENT_BYTES = SEQUENCE.size + TAG_BYTES
STAGING_BYTES = 1 << 16


def acknowledgement(sequence: int, session: Session) -> bytes:
    """Bytes that acknowledge all frames up to `sequence`."""
    packed = SEQUENCE.pack(sequence)
    return packed + session.acknowledgement_tag(packed)


def check_acknowledgement(data: bytes, session: Session) -> int:
    """The sequence number that an acknowledgement stands for; AuthenticationError where it is not the peer's."""
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
    """Send a few bytes without waiting; where the socket takes only part of them, the connection is of no more use."""
    try:
        sent = connection.send(data)
    except OSError as error:
        logger.debug("acknowledging: %s", error)
        sent = 0
    if sent < len(data):
        shut_down(connection)


async def receive(connection: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes and no more; ConnectionError where the other end closes before."""
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        part = await loop.sock_recv(connection, size - len(data))
        if not part:
            raise ConnectionError("closed by the other end")
        data += part
    return data


class FrameReader:
    """Reads a connection's frames: small ones with one call, large bodies straight into their own memory."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.loop = asyncio.get_running_loop()
        self.staging = memoryview(bytearray(STAGING_BYTES))
        self.begin = 0
        self.end = 0

    async def exactly(self, size: int) -> bytes:
        """The next `size` bytes (few); ConnectionError where the other end closes before."""
        while self.end - self.begin < size:
            if self.begin + size > STAGING_BYTES:
                left = bytes(self.staging[self.begin : self.end])
                self.staging[: len(left)] = left
                self.begin, self.end = 0, len(left)
            self.end += await self.receive(self.staging[self.end :])
        self.begin += size
        return bytes(self.staging[self.begin - size : self.begin])

    async def into(self, view: memoryview) -> None:
        """Fill the view with the next bytes; ConnectionError where the other end closes before."""
        staged = min(len(view), self.end - self.begin)
        view[:staged] = self.staging[self.begin : self.begin + staged]
        self.begin += staged
        if self.begin == self.end:
            self.begin = self.end = 0
        view = view[staged:]
        while len(view):
            view = view[await self.receive(view) :]

    async def receive(self, view: memoryview) -> int:
        """Some bytes from the socket."""
        count = await self.loop.sock_recv_into(self.connection, view)
        if count == 0:
            raise ConnectionError("closed by the other end")
        return count
