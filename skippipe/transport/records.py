"""Sealed records, of which all bytes of a connection consist after its handshake, and the streams that they come in.

A record is HEAD, its content encrypted with AES-256-GCM (RFC 5116), and the tag, for which HEAD is associated data. The
nonce counts the records of its direction, each of which has a key of its own: what is altered, left out, replayed or
reordered does not verify. No content is used before it has verified.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from skippipe.transport.buffers import BufferPool
from skippipe.transport.identity import AuthenticationError

HEAD = struct.Struct("<I")
"""The kind in the highest byte, and the length of the content."""
TAG_BYTES = 16
PART_BYTES = 1 << 19
"""Large frames travel in parts that the processor's cache holds while they are sealed and sent."""
MOST_CONTENT_BYTES = PART_BYTES
RECORD_BYTES = HEAD.size + MOST_CONTENT_BYTES + TAG_BYTES
BUFFER_BYTES = RECORD_BYTES + HEAD.size
"""A record of any size, and the head of the next."""
STAGING_BYTES = 1 << 17
"""Longer records are received into a buffer that is used by all connections in turn."""


class RecordKind(IntEnum):
    """What a record holds; the first three go from the end that connected, the others come back."""

    FRAME = 1
    """START and the frame's body, or the beginning of it."""
    PART = 2
    """More of the body."""
    BEAT = 3
    STATE = 4
    """How far frames were delivered."""
    ANSWER = 5
    """To a heartbeat."""
    REFUSED = 6


KINDS = {int(kind): kind for kind in RecordKind}


class Sealer:
    """Seals the records of one direction; without a key they are open, and their tags zeros that nobody looks at."""

    def __init__(self, key: bytes | None) -> None:
        self.cipher = AESGCM(key) if key is not None else None
        self.records = 0

    def next_nonce(self) -> bytes:
        """A nonce that no other record of this direction has, 12 bytes."""
        self.records += 1
        return self.records.to_bytes(12, "big")

    def seal(self, kind: RecordKind, content: bytes) -> bytes:
        """The record of a short content."""
        head = HEAD.pack(kind << 24 | len(content))
        if self.cipher is None:
            return head + content + bytes(TAG_BYTES)
        return head + self.cipher.encrypt(self.next_nonce(), content, head)

    def seal_into(self, kind: RecordKind, content: memoryview, buffer: memoryview) -> memoryview:
        """The record of a content, written into a buffer of at least RECORD_BYTES; its part of the buffer."""
        size = len(content)
        head = buffer[: HEAD.size] = HEAD.pack(kind << 24 | size)
        end = HEAD.size + size + TAG_BYTES
        if self.cipher is None:
            buffer[HEAD.size : HEAD.size + size] = content
            buffer[end - TAG_BYTES : end] = bytes(TAG_BYTES)
        else:
            self.cipher.encrypt_into(self.next_nonce(), content, head, buffer[HEAD.size : end])
        return buffer[:end]


class Opener(Sealer):
    """Opens the records of one direction, in order."""

    def open(self, head: bytes, sealed: memoryview) -> bytes:
        """The content of a record; AuthenticationError if it does not verify."""
        if self.cipher is None:
            return bytes(sealed[:-TAG_BYTES])
        try:
            return self.cipher.decrypt(self.next_nonce(), sealed, head)
        except InvalidTag:
            raise AuthenticationError("a record's tag does not verify") from None

    def open_into(self, head: bytes, sealed: memoryview, place: memoryview) -> None:
        """Write the content into a place of its size; AuthenticationError if it does not verify."""
        if self.cipher is None:
            place[:] = sealed[:-TAG_BYTES]
            return
        try:
            self.cipher.decrypt_into(self.next_nonce(), sealed, head, place)
        except InvalidTag:
            raise AuthenticationError("a record's tag does not verify") from None


class Session(NamedTuple):
    """Both directions of one connection, as one of its ends sees them."""

    sealer: Sealer
    opener: Opener


def record_shape(head: bytes) -> tuple[RecordKind, int]:
    """Kind and length of the record that begins so; AuthenticationError if no peer writes such: it has not verified."""
    (number,) = HEAD.unpack(head)
    kind, size = number >> 24, number & 0xFFFFFF
    if kind not in KINDS or size > MOST_CONTENT_BYTES:
        raise AuthenticationError(f"a record of kind {kind} and {size} bytes")
    return KINDS[kind], size


WAKE_BYTES = 1 << 16
"""A long record wakes its reader for so many bytes or for its rest."""
TakeRecord = Callable[[RecordKind, bytes, memoryview], None]
"""Takes kind, head, and the sealed content with its tag, which stay as they are only until it returns."""


class RecordStream:
    """Cuts what a connection receives into records, apart from any socket: ask for `room`, fill it, say how much.

    Short records come through a small buffer, many at a time; a long one goes to a buffer of the pool, together with
    the head of the one after it.
    """

    def __init__(self, buffers: BufferPool, take: TakeRecord) -> None:
        self.buffers = buffers
        self.take = take
        self.staging = np.empty(STAGING_BYTES, dtype=np.uint8)
        self.large: NDArray[np.uint8] | None = None
        self.begin = self.end = 0
        """What is to be cut still, of the one buffer or the other."""

    @property
    def pending(self) -> int:
        """Bytes of a record that is not complete."""
        return self.end - self.begin

    def room(self) -> memoryview:
        """Where the next bytes belong; never empty."""
        if self.large is None:
            return self.staging.data[self.end :]
        _, size = record_shape(self.large[: HEAD.size].tobytes())
        return self.large.data[self.end : HEAD.size + size + TAG_BYTES + HEAD.size]

    @property
    def worth_waking(self) -> int:
        """Bytes worth waking for: of a long record many or its rest; waking for each packet would cost the compute."""
        return 1 if self.large is None else max(1, min(WAKE_BYTES, len(self.room()) - HEAD.size))

    def close(self) -> None:
        """Give the buffers back: what an error ended lies in cycles, which are not collected for long."""
        self.staging, self.large = self.staging[:0].copy(), None

    def received(self, count: int) -> None:
        """So many bytes were written to the room: hand on what is complete."""
        self.end += count
        if self.large is not None:
            self.cut_large(self.large)
        if self.large is None:
            self.cut_staging()

    def cut_staging(self) -> None:
        """Hand on the records that are in the small buffer as a whole."""
        data = self.staging.data
        while self.end - self.begin >= HEAD.size:
            head = bytes(data[self.begin : self.begin + HEAD.size])
            kind, size = record_shape(head)
            body = self.begin + HEAD.size
            end = body + size + TAG_BYTES
            if end > self.end:
                if end - self.begin > STAGING_BYTES - HEAD.size:
                    self.begin_large(size)
                    return
                break
            self.begin = end
            self.take(kind, head, data[body:end])
        left = self.end - self.begin
        if left and self.begin:
            self.staging[:left] = self.staging[self.begin : self.end].copy()
        self.begin, self.end = 0, left

    def begin_large(self, size: int) -> None:
        """The rest of the record goes to a buffer of its own."""
        self.large = self.buffers.take(BUFFER_BYTES)
        left = self.end - self.begin
        self.large[:left] = self.staging[self.begin : self.end]
        self.begin, self.end = 0, left

    def cut_large(self, large: NDArray[np.uint8]) -> None:
        """Hand on the long record if it is complete; what came of the next one's head begins it."""
        head = large[: HEAD.size].tobytes()
        kind, size = record_shape(head)
        end = HEAD.size + size + TAG_BYTES
        if self.end < end:
            return
        self.take(kind, head, large.data[HEAD.size : end])
        left = self.end - end
        rest = large[end : self.end].copy()
        if left == HEAD.size and record_shape(rest.tobytes())[1] > STAGING_BYTES // 2:
            large[:left] = rest
        else:
            self.staging[:left] = rest
            self.large = None
        self.begin, self.end = 0, left
