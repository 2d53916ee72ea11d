"""Heartbeats and their answers: how far the executor is, and the times that the clocks' offset is found from."""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

from skippipe.transport.message import MalformedMessageError
from skippipe.transport.work import WorkState, unpack_work

BEAT = struct.Struct("<ddd")
"""Wire time of the sending, offset of the clocks and its error; the state of the executor follows."""
ANSWER = struct.Struct("<dd")
"""The beat's time, and the wire time at which it was answered."""


class Beat(NamedTuple):
    """A heartbeat."""

    sent: float
    offset: float
    """Seconds that the receiver's wire clock is ahead of the sender's."""
    error: float
    work: bytes
    """As work.py packs it."""

    def pack(self) -> bytes:
        """Its bytes."""
        return BEAT.pack(self.sent, self.offset, self.error) + self.work


def unpack_beat(content: bytes) -> tuple[Beat, WorkState]:
    """A heartbeat and what it says of the executor; MalformedMessageError if it is none."""
    try:
        sent, offset, error = BEAT.unpack_from(content)
        if not math.isfinite(offset):
            raise ValueError("its offset is no number")
        beat = Beat(sent, offset, error, content[BEAT.size :])
        return beat, unpack_work(beat.work)
    except (struct.error, ValueError) as error:
        raise MalformedMessageError(f"a heartbeat of {len(content)} bytes ({error})") from None


def unpack_answer(content: bytes) -> tuple[float, float]:
    """The beat's time and the answer's; MalformedMessageError if it is none."""
    if len(content) != ANSWER.size:
        raise MalformedMessageError(f"an answer of {len(content)} bytes")
    sent, answered = ANSWER.unpack(content)
    return float(sent), float(answered)
