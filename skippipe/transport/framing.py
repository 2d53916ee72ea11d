"""Frames: a frame's body is a message's header and payload (message.py); it travels in sealed records (records.py).

A frame begins with a record of START and, if it is small, its whole body. A large one goes on in parts, so that
heartbeats come between them and a broken connection goes on after the last part that came.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skippipe.transport.buffers import BufferPool
from skippipe.transport.message import HEADER, MalformedMessageError
from skippipe.transport.records import (
    BUFFER_BYTES,
    PART_BYTES,
    TAG_BYTES,
    Opener,
    RecordKind,
    RecordStream,
    Sealer,
)

START = struct.Struct("<QQQ")
"""Sequence number from 1, length of the body in bytes, and where in the body the next part belongs."""
STATE = struct.Struct("<QQ")
"""All frames up to this sequence number were delivered, and so many bytes of the next have come."""
REFUSED = struct.Struct("<Q")
"""The sequence number of the frame that was refused, 0 for the connection as such; the reason follows."""
MOST_REASON_BYTES = 300
ONE_WRITE_BYTES = 1 << 16
"""Frames up to this size are one record; larger ones are not worth the copy."""

Frame = tuple[int, bytes, memoryview]
"""Sequence number, message header, payload."""
Deliver = Callable[[NDArray[np.uint8]], None]


def frame_record(frame: Frame, sealer: Sealer) -> bytes:
    """A small frame's only record."""
    sequence, header, payload = frame
    start = START.pack(sequence, len(header) + len(payload), 0)
    return sealer.seal(RecordKind.FRAME, start + header + payload)


def frame_records(frame: Frame, sealer: Sealer, offset: int, buffers: BufferPool) -> Iterator[bytes | memoryview]:
    """A large frame's records from `offset` on, 0 or what the peer has of the body; each is valid until the next."""
    sequence, header, payload = frame
    start = START.pack(sequence, len(header) + len(payload), offset)
    yield sealer.seal(RecordKind.FRAME, start if offset else start + header)
    buffer = buffers.take(BUFFER_BYTES).data
    for begin in range(max(0, offset - len(header)), len(payload), PART_BYTES):
        yield sealer.seal_into(RecordKind.PART, payload[begin : begin + PART_BYTES], buffer)


@dataclass
class Incoming:
    """How far a peer's frames have come; kept across its connections."""

    delivered: int = 0
    """The last frame that was delivered."""
    body: NDArray[np.uint8] | None = None
    """Of the next frame, if a part of it is here."""
    filled: int = 0
    """Bytes of it."""

    def forget_part(self) -> None:
        """The next frame begins anew."""
        self.body, self.filled = None, 0


class FrameReceiver:
    """Makes frames of what one connection receives, and delivers each once and in order; knows no socket."""

    def __init__(
        self,
        opener: Opener,
        incoming: Incoming,
        most_bytes: int,
        buffers: BufferPool,
        deliver: Deliver,
        beat: Callable[[bytes], None],
    ) -> None:
        """`deliver` takes bodies of at most `most_bytes`, `beat` the content of heartbeats.

        What they raise, AuthenticationError, and MalformedMessageError for what breaks the order leave `received`.
        """
        self.opener = opener
        self.incoming = incoming
        self.most_bytes = most_bytes
        self.buffers = buffers
        self.deliver = deliver
        self.beat = beat
        self.delivered_bytes = 0
        """Length of the last frame that was delivered."""
        self.stream = RecordStream(buffers, self.take)

    @property
    def progress(self) -> int:
        """Bytes that came of the frame after the last delivered one, verified or not."""
        return self.incoming.filled + self.stream.pending

    def take(self, kind: RecordKind, head: bytes, sealed: memoryview) -> None:
        """Take a record."""
        if kind is RecordKind.PART:
            self.take_part(head, sealed)
        elif kind is RecordKind.FRAME:
            self.take_start(head, sealed)
        elif kind is RecordKind.BEAT:
            self.beat(self.opener.open(head, sealed))
        else:
            self.opener.open(head, sealed)
            raise MalformedMessageError(f"a record of kind {kind.name} from the end that connected")

    def take_start(self, head: bytes, sealed: memoryview) -> None:
        """Begin a frame, or go on with one; a small one is delivered."""
        content = np.empty(len(sealed) - TAG_BYTES, dtype=np.uint8)
        self.opener.open_into(head, sealed, content.data)
        if len(content) < START.size:
            raise MalformedMessageError(f"a frame that begins with {len(content)} bytes")
        sequence, length, offset = START.unpack_from(content.data)
        body = content[START.size :]
        incoming = self.incoming
        if sequence != incoming.delivered + 1:
            raise MalformedMessageError(f"frame {sequence} after frame {incoming.delivered}")
        if not HEADER.size <= length <= self.most_bytes or len(body) > length:
            raise MalformedMessageError(f"a frame of {length} bytes, expected at most {self.most_bytes}")
        if offset:
            if incoming.body is None or (len(incoming.body), incoming.filled) != (length, offset) or len(body):
                raise MalformedMessageError(f"a frame that goes on at byte {offset}, where it did not end")
            return
        incoming.forget_part()
        if len(body) == length:
            self.complete(body)
            return
        incoming.body = self.buffers.take(length)
        incoming.body[: len(body)] = body
        incoming.filled = len(body)

    def take_part(self, head: bytes, sealed: memoryview) -> None:
        """More of a large frame, right into its place."""
        incoming, size = self.incoming, len(sealed) - TAG_BYTES
        body, end = incoming.body, incoming.filled + size
        if body is None or end > len(body):
            # Only what the peer has really sent is refused; what somebody else did ends the connection alone.
            self.opener.open(head, sealed)
            raise MalformedMessageError(f"{size} bytes more than a frame has")
        self.opener.open_into(head, sealed, body.data[incoming.filled : end])
        incoming.filled = end
        if end == len(body):
            incoming.forget_part()
            self.complete(body)

    def complete(self, body: NDArray[np.uint8]) -> None:
        """A frame is there as a whole."""
        self.deliver(body)
        self.incoming.delivered += 1
        self.delivered_bytes = len(body)


def refusal(sequence: int, reason: str) -> bytes:
    """Content of a record that refuses a frame, or with sequence 0 the connection."""
    return REFUSED.pack(sequence) + reason.encode()[:MOST_REASON_BYTES]


def unpack_refusal(content: bytes) -> tuple[int, str]:
    """Sequence number and reason; MalformedMessageError if there is none."""
    if not REFUSED.size <= len(content) <= REFUSED.size + MOST_REASON_BYTES:
        raise MalformedMessageError(f"a refusal of {len(content)} bytes")
    (sequence,) = REFUSED.unpack_from(content)
    return int(sequence), content[REFUSED.size :].decode(errors="replace")


def unpack_state(content: bytes) -> tuple[int, int]:
    """Last delivered frame and bytes of the next; MalformedMessageError if there are none."""
    if len(content) != STATE.size:
        raise MalformedMessageError(f"a state of {len(content)} bytes")
    delivered, partial = STATE.unpack(content)
    return int(delivered), int(partial)
