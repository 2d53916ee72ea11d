"""Which nodes have become slow: told to the user, and no reason to leave a node out."""

from __future__ import annotations

import statistics
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping

from skippipe.runtime.events import NodeSlow
from skippipe.schedule import Costs
from skippipe.schedule.timeline import BACKWARD, FORWARD, LOSS, Span

SLOW_FACTOR = 2.0
"""A node is slow whose tasks take so many times as long as they usually do,"""
SLOW_ITERATIONS = 2
"""for so many iterations in a row."""
FEWEST, MOST = 3, 20
"""Iterations from which it is known what is usual, and that are remembered for it."""


def slowness(spans: Iterable[Span], costs: Costs, node: int) -> float:
    """How long a node's tasks took over what the schedule expects of them; 0 if there were none."""
    cost_s = {FORWARD: costs.forward_s[node], LOSS: costs.loss_s[node], BACKWARD: costs.backward_s[node]}
    measured_s = expected_s = 0.0
    for span in spans:
        measured_s += span.end_s - span.start_s
        expected_s += float(cost_s[span.kind])
    return measured_s / expected_s if expected_s else 0.0


class Watch:
    """Knows what is usual for each node."""

    def __init__(self) -> None:
        self.usual: defaultdict[int, deque[float]] = defaultdict(lambda: deque(maxlen=MOST))
        """Of the last iterations in which it was not slow."""
        self.in_a_row: defaultdict[int, int] = defaultdict(int)
        """Iterations for which a node has been slow."""

    def look(self, iteration: int, values: Mapping[int, float]) -> list[NodeSlow]:
        """Take each node's slowness in an iteration; who has become slow with it, and who is slow no more."""
        news = []
        for node, value in sorted(values.items()):
            before = self.usual[node]
            factor = value / statistics.median(before) if len(before) >= FEWEST else 1.0
            if not value:
                continue
            if factor > SLOW_FACTOR:
                self.in_a_row[node] += 1
                if self.in_a_row[node] == SLOW_ITERATIONS:
                    news.append(NodeSlow(node, iteration - SLOW_ITERATIONS + 1, factor))
                continue
            if self.in_a_row.pop(node, 0) >= SLOW_ITERATIONS:
                news.append(NodeSlow(node, iteration, factor))
            before.append(value)
        return news
