"""When the processes of nodes that have died begin again, how often, and their births; without processes and clocks."""

from __future__ import annotations

from collections import Counter

FIRST_PAUSE_S = 1.0
"""Before a node's first restart; it doubles with each process that dies before it has trained well."""
LONGEST_PAUSE_S = 30.0
MOST_BIRTHS = 10_000
"""Of a node under one launcher; births of another launcher's processes begin at another multiple of it."""
WELL_ITERATIONS = 3
"""A process that has been there for so long has trained well: what it dies of is not what its predecessors died of."""
SOON_ITERATIONS = 10
"""A process that the others go on without so soon after it has come back counts as one that has died."""


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
        self.in_vain: Counter[int] = Counter()
        """Each node's deaths since one of its processes has trained well, that one's own among them."""
        self.births: Counter[int] = Counter()
        """Of each node's last process, counted from its first."""
        self.due: dict[int, float] = {}
        """When a node's next process begins."""

    def plan(self, node: int, now: float, iterations: int | None = None, left_out: bool = False) -> bool:
        """A node's process has died, or the others have gone on without it (`left_out`); whether there will be another.

        `iterations` have been done since the process came back; None if it has not, or was the first.
        """
        # What is left out again and again refuses something, or hangs: it must not disturb the others for ever.
        has_died = not left_out or (iterations is not None and iterations < SOON_ITERATIONS)
        if self.deaths[node] >= self.most or self.births[node] + 1 >= MOST_BIRTHS:
            return False
        if iterations is not None and iterations >= WELL_ITERATIONS:
            self.in_vain[node] = 0
        self.due[node] = now + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** self.in_vain[node])
        self.in_vain[node] += has_died
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
