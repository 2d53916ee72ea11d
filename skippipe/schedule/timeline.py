"""What every node does when: spans of tasks, hops and syncs, expected by a schedule or measured in a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from skippipe.schedule.costs import Costs
from skippipe.schedule.plan import Kind, Plan
from skippipe.schedule.simulate import step_nodes, step_seconds

FORWARD, LOSS, BACKWARD, LINK, SYNC = "forward", "loss", "backward", "link", "sync"
KIND_NAMES = {Kind.FORWARD: FORWARD, Kind.LOSS: LOSS, Kind.BACKWARD: BACKWARD}


@dataclass(frozen=True)
class Span:
    """Something that takes from start_s to end_s; a link's node is the sender."""

    node: int
    kind: str
    """forward, loss, backward, link or sync."""
    microbatch: int | None
    """None for a sync."""
    start_s: float
    end_s: float

    @property
    def name(self) -> str:
        """Short text such as F3, or sync."""
        return self.kind if self.microbatch is None else f"{self.kind[0].upper()}{self.microbatch}"


@dataclass(frozen=True)
class Timeline:
    """All spans of one iteration, in seconds from its first forward."""

    spans: tuple[Span, ...]

    def __iter__(self) -> Iterator[Span]:
        return iter(self.spans)

    def of_node(self, node: int) -> list[Span]:
        """Tasks and sync of a node, in the order in which they run."""
        chosen = (span for span in self.spans if span.node == node and span.kind != LINK)
        return sorted(chosen, key=lambda span: span.start_s)

    def of_microbatch(self, microbatch: int) -> list[Span]:
        """Tasks and hops of a microbatch, in the order of its round trip."""
        return sorted((span for span in self.spans if span.microbatch == microbatch), key=lambda span: span.start_s)

    @property
    def iteration_s(self) -> float:
        """End of the last backward."""
        return max(span.end_s for span in self.spans if span.kind not in (SYNC, LINK))

    @property
    def step_s(self) -> float:
        """End of the last sync."""
        return max(span.end_s for span in self.spans)


def plan_timeline(plan: Plan, costs: Costs) -> Timeline:
    """The timeline of a plan whose orders are followed, as simulated."""
    starts, nodes = plan.starts(costs), step_nodes(plan.paths_array)
    ends = starts + step_seconds(plan.paths_array, costs)
    begin = float(starts.min())
    length = plan.path_length
    spans: list[Span] = []
    last_backward = [0.0] * len(costs.forward_s)
    for m, visited in enumerate(nodes):
        for step, node in enumerate(visited):
            kind = FORWARD if step < length else LOSS if step == length else BACKWARD
            start_s, end_s = float(starts[m, step]) - begin, float(ends[m, step]) - begin
            spans.append(Span(int(node), kind, m, start_s, end_s))
            if step < 2 * length:
                spans.append(Span(int(node), LINK, m, end_s, end_s + float(costs.hop_s[node, visited[step + 1]])))
            if kind == BACKWARD:
                last_backward[node] = max(last_backward[node], end_s)
    for stage, sync_s in zip(plan.stages, plan.sync_s, strict=True):
        synced_from = max(last_backward[node] for node in stage)
        spans += [Span(node, SYNC, None, synced_from, synced_from + sync_s) for node in stage]
    return Timeline(tuple(spans))
