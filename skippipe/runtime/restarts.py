"""When the processes of nodes that have died begin again, and how often; apart from processes and clocks."""

from __future__ import annotations

from collections import Counter

FIRST_PAUSE_S = 1.0
"""Before a node's first restart; before each later one it is twice the last."""
LONGEST_PAUSE_S = 30.0


class Restarts:
    """Counts each node's deaths and processes. Times are seconds of any one clock."""

    def __init__(self, most: int) -> None:
        """A node begins again `most` times."""
        self.most = most
        self.deaths: Counter[int] = Counter()
        self.births: Counter[int] = Counter()
        """Of each node's last process; the first has 0."""
        self.due: dict[int, float] = {}
        """When a node's next process begins."""

    def plan(self, node: int, now: float, has_died: bool = True) -> bool:
        """A node's process has ended, of its own accord unless it `has_died`; whether there will be another."""
        if self.deaths[node] >= self.most:
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
        return [(node, self.births[node]) for node in nodes]
