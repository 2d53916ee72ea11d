"""When the processes of nodes that have died begin again, how often, and their births; without processes and clocks."""

from __future__ import annotations

from collections import Counter

FIRST_PAUSE_S = 1.0
"""Before a node's first restart; before each later one it is twice the last."""
LONGEST_PAUSE_S = 30.0
MOST_BIRTHS = 10_000
"""Of a node under one launcher; births of another launcher's processes begin at another multiple of it."""


def births_from(seconds: float) -> int:
    """The first birth of nodes whose launcher joins a run, at a time in seconds: larger than all that were before.

    The launchers that a run began with count from 0.
    """
    return max(1, int(seconds)) * MOST_BIRTHS


def of_one_launcher(birth: int, other: int) -> bool:
    """Whether processes with these births have the same launcher, if they are of nodes that it can have."""
    return birth // MOST_BIRTHS == other // MOST_BIRTHS


class Restarts:
    """Counts each node's deaths and processes. Times are seconds of any one clock."""

    def __init__(self, most: int, first_birth: int = 0) -> None:
        """A node begins again `most` times; its first process has the `first_birth`."""
        self.most = most
        self.first_birth = first_birth
        self.deaths: Counter[int] = Counter()
        self.births: Counter[int] = Counter()
        """Of each node's last process, counted from its first."""
        self.due: dict[int, float] = {}
        """When a node's next process begins."""

    def plan(self, node: int, now: float, has_died: bool = True) -> bool:
        """A node's process has ended, of its own accord unless it `has_died`; whether there will be another."""
        if self.deaths[node] >= self.most or self.births[node] + 1 >= MOST_BIRTHS:
            return False
        self.due[node] = now + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** self.deaths[node])
        self.deaths[node] += has_died
        return True

    def wait_s(self, now: float) -> float | None:
        """Seconds until the next one begins; None if none will."""
        return max(0.0, min(self.due.values()) - now) if self.due else None

    def take_due(self, now: float) -> list[tuple[int, int]]:
        """Nodes whose next process begins now, and its birth."""
        nodes = [node for node, due in self.due.items() if due <= now]
        for node in nodes:
            del self.due[node]
            self.births[node] += 1
        return [(node, self.first_birth + self.births[node]) for node in nodes]
