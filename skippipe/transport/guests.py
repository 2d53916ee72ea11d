"""Connections that have not proved the secret yet, and log lines about strangers: few of either, whoever comes."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from skippipe.transport.addresses import network_of
from skippipe.transport.identity import AuthenticationError

GuestName = TypeVar("GuestName", bound=Hashable)

MOST_STRANGERS = 64
MOST_OF_A_NETWORK = 32
MOST_OF_A_NODE = 4
"""Connections in the name of one node that have not proved it yet."""
MOST_OPENINGS = 4096
LINES_AT_ONCE = 5
LINE_SECONDS = 30.0
"""After the first lines, one in this time."""


class Guests(Generic[GuestName]):
    """Who may stay for a while: the oldest leaves when one too many comes."""

    def __init__(self, most: int, most_of_an_origin: int) -> None:
        self.most = most
        self.most_of_an_origin = most_of_an_origin
        self.origins: dict[GuestName, Hashable] = {}
        """By guest, in the order in which they came: whatever a single stranger has few of."""
        self.counts: Counter[Hashable] = Counter()

    def arrive(self, guest: GuestName, origin: Hashable) -> GuestName | None:
        """Let a guest in; who must leave for it: the oldest of its own origin if that has many, else of all."""
        leaving = None
        if self.counts[origin] >= self.most_of_an_origin:
            leaving = next(other for other, its in self.origins.items() if its == origin)
        elif len(self.origins) >= self.most:
            leaving = self.oldest()
        if leaving is not None:
            self.leave(leaving)
        self.origins[guest] = origin
        self.counts[origin] += 1
        return leaving

    def oldest(self) -> GuestName | None:
        """Who has been here longest."""
        return next(iter(self.origins), None)

    def leave(self, guest: GuestName) -> None:
        """A guest is none any more; it may have left before."""
        if guest in self.origins:
            origin = self.origins.pop(guest)
            self.counts[origin] -= 1
            if not self.counts[origin]:
                del self.counts[origin]


class Door(Generic[GuestName]):
    """All guests: strangers by their network, and callers, whose opening verified, by the node that they name.

    Strangers, however many come, don't displace callers; and who has overheard openings can't say them again.
    """

    def __init__(self, members: int) -> None:
        """The run has so many nodes, which may all be on one machine."""
        self.strangers: Guests[GuestName] = Guests(max(MOST_STRANGERS, 2 * members), max(MOST_OF_A_NETWORK, members))
        self.callers: Guests[GuestName] = Guests(MOST_OF_A_NODE * members, MOST_OF_A_NODE)
        self.openings: dict[bytes, None] = {}
        """Tags of the last ones that verified."""

    def arrive(self, guest: GuestName, host: str) -> GuestName | None:
        """Let a stranger in from an address; who must leave for it."""
        return self.strangers.arrive(guest, network_of(host))

    def call(self, guest: GuestName, identity: bytes, tag: bytes) -> GuestName | None:
        """A guest's opening, with this tag, verified; who must leave for it. AuthenticationError for overheard ones."""
        if tag in self.openings:
            raise AuthenticationError("its opening was used before")
        if len(self.openings) >= MOST_OPENINGS:
            del self.openings[next(iter(self.openings))]
        self.openings[tag] = None
        self.strangers.leave(guest)
        return self.callers.arrive(guest, identity)

    def oldest(self) -> GuestName | None:
        """Who may leave first."""
        stranger = self.strangers.oldest()
        return self.callers.oldest() if stranger is None else stranger

    def leave(self, guest: GuestName) -> None:
        """A guest has proved the secret or is gone; it may have left before."""
        self.strangers.leave(guest)
        self.callers.leave(guest)


class BoundedLog:
    """Warnings that others can cause: a few at once, then one in LINE_SECONDS that says how many it stands for."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self.logger = logger
        self.clock = clock
        self.allowed = float(LINES_AT_ONCE)
        self.filled_at = clock()
        self.held_back = 0

    def warning(self, message: str, *values: object) -> None:
        """Log, or only count."""
        now = self.clock()
        self.allowed = min(LINES_AT_ONCE, self.allowed + (now - self.filled_at) / LINE_SECONDS)
        self.filled_at = now
        if self.allowed < 1:
            self.held_back += 1
            return
        self.allowed -= 1
        more = f" ({self.held_back} more such lines were left out)" if self.held_back else ""
        self.held_back = 0
        self.logger.warning("%s%s", message % values, more)
