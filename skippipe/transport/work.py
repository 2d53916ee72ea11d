"""How far a node's executor is: written by the torch thread, carried by heartbeats, judged by the peers."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

STATE = struct.Struct("<dQB")
"""Seconds since the last change, changes so far, whether the executor works rather than waits; then what it does."""
MOST_TEXT_BYTES = 120


class WorkState(NamedTuple):
    """What an executor did when its heartbeat was sent."""

    seconds: float
    """Since it began that."""
    changes: int
    """So far."""
    working: bool
    """Rather than waiting for a peer."""
    what: str

    def hangs(self, patience: float) -> bool:
        """Whether it works on one thing for too long; what waits for others may wait."""
        return self.working and self.seconds > patience


class Work:
    """What this node's executor is doing; one assignment a change, so that the network's thread needs no lock."""

    def __init__(self) -> None:
        self.now: tuple[int, bool, str, float] = (0, False, "starting", time.monotonic())

    def begin(self, what: str) -> None:
        """The executor works on something that takes no peer."""
        self.now = (self.now[0] + 1, True, what, time.monotonic())

    def wait(self, what: str) -> None:
        """The executor waits for a peer."""
        self.now = (self.now[0] + 1, False, what, time.monotonic())

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait for a peer in the middle of something, which begins anew after it."""
        count, working, what, _ = self.now
        self.wait(what)
        try:
            yield
        finally:
            self.now = (count + 2, working, what, time.monotonic())

    def pack(self) -> bytes:
        """The state as a heartbeat carries it."""
        count, working, what, since = self.now
        return STATE.pack(time.monotonic() - since, count, working) + what.encode()[:MOST_TEXT_BYTES]


def unpack_work(data: bytes) -> WorkState:
    """What a peer's heartbeat says; ValueError if it says nothing."""
    if not STATE.size <= len(data) <= STATE.size + MOST_TEXT_BYTES:
        raise ValueError(f"{len(data)} bytes of work")
    seconds, count, working = STATE.unpack_from(data)
    return WorkState(seconds, count, bool(working), data[STATE.size :].decode(errors="replace"))
