"""What every node does when: spans of tasks, hops and syncs, expected by a schedule or measured in a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from skippipe.schedule.costs import Costs
from skippipe.schedule.plan import Kind, Plan, kind_of_step
from skippipe.schedule.simulate import step_arrivals, step_nodes, step_seconds

FORWARD, LOSS, BACKWARD, LINK, SYNC = "forward", "loss", "backward", "link", "sync"
KIND_NAMES = {Kind.FORWARD: FORWARD, Kind.LOSS: LOSS, Kind.BACKWARD: BACKWARD}


@dataclass(frozen=True)
class Span:
    """What a node does from one time to another, in seconds from the first forward of the iteration."""

    node: int
    """The node; of a link, the sender."""
    kind: str
    """forward, loss, backward, link (a message on its way) or sync (of the stage's gradients)."""
    microbatch: int | None
    """None for a sync."""
    start_s: float
    end_s: float

    @property
    def name(self) -> str:
        """As in a schedule's order, such as F3, L3 or B3; link 3 for a message of microbatch 3; sync."""
        if self.microbatch is None:
            return self.kind
        return f"{LINK} {self.microbatch}" if self.kind == LINK else f"{self.kind[0].upper()}{self.microbatch}"

    @property
    def is_task(self) -> bool:
        """Whether the node computes: a forward, a loss or a backward."""
        return self.kind not in (LINK, SYNC)


@dataclass(frozen=True, repr=False)
class Timeline:
    """All spans of one iteration; iterating gives them one by one, printing a line for each node."""

    spans: tuple[Span, ...]

    def __iter__(self) -> Iterator[Span]:
        return iter(self.spans)

    def __len__(self) -> int:
        return len(self.spans)

    def __repr__(self) -> str:
        return (
            f"Timeline({len(self.spans)} spans of {len(self.nodes)} nodes,"
            f" iteration {self.iteration_s:.3f} s, step {self.step_s:.3f} s)"
        )

    def __str__(self) -> str:
        """Each node's tasks, when the first begins and the last ends, the seconds that it computes, its sync's end."""
        lines = [f"iteration {self.iteration_s:.3f} s, step {self.step_s:.3f} s; each node, in seconds:"]
        lines.append(f"{'node':>5} {'tasks':>6} {'first':>9} {'last':>9} {'busy':>9} {'synced':>9}")
        for node in self.nodes:
            spans = self.of_node(node)
            tasks = [span for span in spans if span.is_task]
            times = [tasks[0].start_s, tasks[-1].end_s] if tasks else [0.0, 0.0]
            times.append(sum(span.end_s - span.start_s for span in tasks))
            times.append(max(span.end_s for span in spans))
            lines.append(f"{node:>5} {len(tasks):>6} " + " ".join(f"{seconds:>9.2f}" for seconds in times))
        return "\n".join(lines)

    @property
    def nodes(self) -> list[int]:
        """Numbers of all nodes that do something, ascending."""
        return sorted({span.node for span in self.spans})

    def of_node(self, node: int) -> list[Span]:
        """Tasks of a node in the order in which it runs them, and its sync; none for a node that there isn't."""
        return sorted((span for span in self.spans if span.node == node and span.kind != LINK), key=when)

    def of_microbatch(self, microbatch: int) -> list[Span]:
        """Tasks and links of a microbatch in the order of its way there and back; none if there is no such one."""
        return sorted((span for span in self.spans if span.microbatch == microbatch), key=when)

    @property
    def iteration_s(self) -> float:
        """End of the last backward."""
        return max((span.end_s for span in self.spans if span.is_task), default=0.0)

    @property
    def step_s(self) -> float:
        """End of the last sync."""
        return max((span.end_s for span in self.spans), default=0.0)


def when(span: Span) -> tuple[float, float]:
    """Start and end, to sort by."""
    return span.start_s, span.end_s


def plan_timeline(plan: Plan, costs: Costs) -> Timeline:
    """The timeline of a plan whose orders are followed, as simulated."""
    starts, nodes = plan.starts(costs), step_nodes(plan.paths_array)
    ends = starts + step_seconds(plan.paths_array, costs)
    arrivals = step_arrivals(plan.paths_array, costs, starts)
    begin = float(starts.min())
    spans: list[Span] = []
    last_backward = [0.0] * len(costs.forward_s)
    for microbatch, visited in enumerate(nodes.tolist()):
        for step, node in enumerate(visited):
            kind = kind_of_step(step, plan.path_length)
            start_s, end_s = float(starts[microbatch, step]) - begin, float(ends[microbatch, step]) - begin
            spans.append(Span(node, KIND_NAMES[kind], microbatch, start_s, end_s))
            if step + 1 < len(visited):
                arrival_s = float(arrivals[microbatch, step]) - begin
                spans.append(Span(node, LINK, microbatch, end_s, arrival_s))
            if kind is Kind.BACKWARD:
                last_backward[node] = max(last_backward[node], end_s)
    for stage, sync_s in zip(plan.stages, plan.sync_s, strict=True):
        synced_from = max(last_backward[node] for node in stage)
        spans += [Span(node, SYNC, None, synced_from, synced_from + sync_s) for node in stage]
    return Timeline(tuple(spans))
