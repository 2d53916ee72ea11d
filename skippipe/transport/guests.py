"""Connections that have not proved the secret yet, and log lines about strangers: few of either, whoever comes."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

GuestName = TypeVar("GuestName", bound=Hashable)

LINES_AT_ONCE = 5
LINE_SECONDS = 30.0
"""After the first lines, one in this time."""


class Guests(Generic[GuestName]):
    """Who may stay until it has proved the secret: the oldest leaves when one too many comes."""

    def __init__(self, most: int, most_of_an_address: int) -> None:
        self.most = most
        self.most_of_an_address = most_of_an_address
        self.addresses: dict[GuestName, str] = {}
        """By guest, in the order in which they came."""
        self.counts: Counter[str] = Counter()

    def arrive(self, guest: GuestName, address: str) -> GuestName | None:
        """Let a guest in; who must leave for it: the oldest of its own address if that has many, else of all."""
        leaving = None
        if self.counts[address] >= self.most_of_an_address:
            leaving = next(other for other, its in self.addresses.items() if its == address)
        elif len(self.addresses) >= self.most:
            leaving = self.oldest()
        if leaving is not None:
            self.leave(leaving)
        self.addresses[guest] = address
        self.counts[address] += 1
        return leaving

    def oldest(self) -> GuestName | None:
        """Who has been here longest."""
        return next(iter(self.addresses), None)

    def leave(self, guest: GuestName) -> None:
        """A guest has proved the secret or is gone; it may have left before."""
        address = self.addresses.pop(guest, None)
        if address is not None:
            self.counts[address] -= 1
            if not self.counts[address]:
                del self.counts[address]


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
