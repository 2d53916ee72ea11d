"""Time: monotonic inside a machine, and how far the clock of another one is off, measured over a link."""

from __future__ import annotations

import hashlib
import math
import os
import time
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Differs from machine to machine and from boot to boot (man 4 random)."""
TIME_NAMESPACE = Path("/proc/self/ns/time")
"""Processes of one machine in different ones have clocks of their own (man 7 time_namespaces)."""
IDENTITY_BYTES = 16
DRIFT = 1e-4
"""How fast two clocks may part, in seconds a second; NTP allows itself 5e-4 (RFC 5905)."""
JITTER_SECONDS = 1e-3
CLOSE_SECONDS = 1e-5
CLOSEST_READINGS = 20


class Clock:
    """A machine's clock: nobody can set it, and what others read goes on counting while the machine sleeps.

    Waiting counts in monotonic seconds, which stand still during a suspend. What other machines read are wire seconds
    (since boot, suspends included): their offset to another machine's stays what it is.
    """

    def __init__(self) -> None:
        namespace = os.readlink(TIME_NAMESPACE) if TIME_NAMESPACE.is_symlink() else ""
        name = f"{BOOT_ID.read_text()} {namespace}".encode()
        self.identity = hashlib.blake2b(name, digest_size=IDENTITY_BYTES).digest()
        """The same in all processes that read the same clock."""
        self.asleep = self.closest_reading()

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def since_boot(self) -> float:
        """Seconds since boot, suspends included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def suspended(self) -> float:
        """Seconds that the machine has been suspended, as far as the wire's clock is ahead of the monotonic one."""
        if abs(self.since_boot() - self.now() - self.asleep) > JITTER_SECONDS:
            self.asleep = self.closest_reading()
        return self.asleep

    def closest_reading(self) -> float:
        """Difference of the two clocks, read when nothing came between."""
        readings = []
        for _ in range(CLOSEST_READINGS):
            before = self.now()
            there = self.since_boot()
            after = self.now()
            readings.append((after - before, there - after))
            if after - before < CLOSE_SECONDS:
                break
        return min(readings)[1]

    def wire(self, monotonic: float) -> float:
        """Wire seconds of a monotonic time."""
        return monotonic + self.suspended()

    def from_wire(self, wire: float) -> float:
        """Monotonic seconds of a wire time."""
        return wire - self.suspended()


class ClockOffset:
    """How far a peer's wire clock is ahead of ours, from round trips, as NTP finds it (RFC 5905)."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.error = math.inf
        """The truth lies no further away, at the time of the sample."""
        self.sampled_at = 0.0

    @property
    def known(self) -> bool:
        """Whether there was a sample."""
        return self.error < math.inf

    def same_clock(self) -> None:
        """The peer reads our own clock."""
        self.seconds, self.error = 0.0, 0.0

    def sample(self, sent: float, theirs: float, received: float) -> None:
        """Take a round trip: sent and received by our clock, answered by theirs. The closest one counts for a while."""
        if not all(map(math.isfinite, (sent, theirs, received))) or received < sent or self.error == 0.0:
            return
        seconds, error = theirs - (sent + received) / 2, (received - sent) / 2
        aged = self.error + DRIFT * (received - self.sampled_at)
        stepped = self.known and abs(seconds - self.seconds) > error + aged
        if error <= aged or stepped:
            self.seconds, self.error, self.sampled_at = seconds, error, received
