"""Frames on a connection: FRAME, then the body, a message's header and payload (wire.py), then a tag (identity.py)."""

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
PART_BYTES = 1 << 21
"""Large frames are tagged, sent and read in parts that the processor's cache holds; smaller ones cost more calls."""
ACKNOWLEDGEMENT_BYTES = SEQUENCE.size + TAG_BYTES


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
