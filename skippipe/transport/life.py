"""Whether a peer is alive and takes what it is sent; a state machine that is told of events and times."""

from __future__ import annotations

STOOD_STILL_SECONDS = 0.5
"""A process that does what is due so much later stood still, perhaps with its whole machine."""
MOST_REFUSALS = 2
"""Refusals of the same frame: the first may be chance, the second ends the run."""


class Refusals:
    """How often in a row the same frame was refused; both ends of a link count."""

    def __init__(self) -> None:
        self.sequence = 0
        self.count = 0

    def another(self, sequence: int) -> bool:
        """Count a refusal; whether it is one too many."""
        self.count = self.count + 1 if sequence == self.sequence else 1
        self.sequence = sequence
        return self.count >= MOST_REFUSALS


class Life:
    """What counts as life of a peer: progress that it acknowledges, and answers only while it owes us nothing else.

    A new connection is no progress, nor are bytes that came before: a frame that is sent again and again and never
    arrives whole is as good as a dead peer. Nor is it life that we send something: a peer that was silent already stays
    so, whatever it is asked. Times are seconds of any one clock.
    """

    def __init__(self, now: float) -> None:
        self.heard_at = now
        self.delivered = 0
        """Frames up to this one were acknowledged."""
        self.partial = 0
        """Bytes of the next one that the peer has had at most."""
        self.queued = 0
        """The newest frame."""
        self.asked_at = now
        """When the peer began to owe us frames, if it does."""
        self.met = False

    @property
    def owed(self) -> bool:
        """Whether frames are still to be acknowledged."""
        return self.queued > self.delivered

    def connected(self, now: float) -> None:
        """A connection is there; only the first one counts as life."""
        if not self.met:
            self.met, self.heard_at = True, max(self.heard_at, now)

    def queue(self, sequence: int, now: float) -> None:
        """A frame is to be sent."""
        if not self.owed:
            self.asked_at = now
        self.queued = sequence

    def acknowledged(self, delivered: int, partial: int, now: float) -> None:
        """The peer has frames up to `delivered`, and `partial` bytes of the next."""
        if (delivered, partial) > (self.delivered, self.partial):
            self.delivered, self.partial = delivered, partial
            self.heard_at = max(self.heard_at, now)

    def answered(self, now: float) -> None:
        """A heartbeat was answered: whoever owes frames has as long to take them as if it had been heard before."""
        self.heard_at = max(self.heard_at, self.asked_at if self.owed else now)

    def excuse(self, seconds: float, now: float) -> None:
        """A look at the peer comes so late: this process stood still, which is no silence of the peer."""
        if seconds <= STOOD_STILL_SECONDS:
            return
        self.heard_at = min(now, self.heard_at + seconds)
        self.asked_at = min(now, self.asked_at + seconds)

    def silent(self, now: float) -> float:
        """Seconds without life."""
        return now - self.heard_at
