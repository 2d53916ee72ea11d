"""What the user reads of nodes that are lost while a run goes on, and of those that come back."""

from __future__ import annotations

from collections import Counter

from skippipe.report.metrics import IterationMetrics, SurvivalSummary
from skippipe.runtime.events import FirstRestored, NodeBack, NodeSlow, ViewBegun
from skippipe.runtime.slowness import SLOW_FACTOR


class Losses:
    """Puts together what the launcher saw of a process and what the nodes made of it."""

    def __init__(self, expected_step_s: float, local: range, joins: bool = False) -> None:
        """The plan that the run begins with expects steps of so many seconds; this launcher has the nodes `local`.

        If it `joins` a run, that goes on without them.
        """
        self.expected_step_s = expected_step_s
        self.here = set(local)
        """Nodes that this launcher starts again."""
        self.how: dict[int, str] = {}
        """How each lost node's process here ended."""
        self.deaths: Counter[int] = Counter()
        """Of each node here."""
        self.untold: set[int] = set()
        """Nodes whose process here has ended since they were last told of."""
        self.away = set(local) if joins else set[int]()
        """Nodes that are no members, as far as is known."""
        self.began_with: dict[int, int] = {}
        """The iteration that each node was to begin with that joined."""
        self.back_in: dict[int, int] = {}
        """The same of nodes here, once they were there."""
        self.summary = SurvivalSummary()
        self.expected_by_iteration: dict[int, float] = {}
        """What was expected of the steps in which nodes were lost."""

    def lost(self, node: int, how: str) -> None:
        """A node's process has ended, and the others go on."""
        self.how[node] = how
        self.deaths[node] += 1
        self.untold.add(node)

    def stays_away(self, node: int) -> str:
        """A line on a node that is not started again."""
        self.here.discard(node)
        ended = "once" if self.deaths[node] == 1 else f"{self.deaths[node]} times"
        return f"node {node} ({self.how[node]}) has ended {ended} and stays away (peers.restart); --join brings it back"

    def back(self, event: NodeBack) -> str:
        """A line on a node that is there again."""
        self.untold.discard(event.node)
        self.back_in[event.node] = event.iteration
        handed = f"stage {event.stage} {event.source} ({event.size / 1e6:.1f} MB in {event.seconds:.1f} s)"
        return f"node {event.node} back in iteration {event.iteration} with {handed}"

    def restored(self, event: FirstRestored) -> str:
        """A line on a node that has taken the first stage."""
        return f"node {event.node} changes to stage 0 in iteration {event.iteration}, {event.source}"

    def slow(self, event: NodeSlow) -> str:
        """A line on a node that has become slow, or is so no more."""
        if event.factor > SLOW_FACTOR:
            times = f"{event.factor:.1f} times as long as usual"
            return f"node {event.node} is slow from iteration {event.iteration} on: its tasks take {times}"
        return f"node {event.node} is as fast as usual again from iteration {event.iteration} on"

    def view(self, event: ViewBegun) -> str | None:
        """A line on what the nodes have agreed on; None if others say it."""
        self.summary.views = event.number + 1
        self.summary.iterations_redone += event.way == "redo"
        absent = self.count(event)
        before_s, self.expected_step_s = self.expected_step_s, event.expected_step_s
        begins = f"view {event.number} from iteration {event.iteration}"
        moved = (
            f"{names(event.moved)} {'changes' if len(event.moved) == 1 else 'change'} stage; " if event.moved else ""
        )
        expected = f"next expected {event.expected_step_s:.1f} s"
        if event.joined:
            # This launcher's own tell themselves when they are there.
            others = tuple(node for node in event.joined if node not in self.here)
            came = f"{names(others)} of another launcher {'joins' if len(others) == 1 else 'join'}; " if others else ""
            return f"{begins}: {came}{moved}{expected}" if event.moved or others else None
        if event.way == "boundary":
            if event.expected_step_s < before_s:
                return f"a better plan, {begins}: {moved}{expected}, not {before_s:.1f} s"
            # Whoever was to join may be gone again.
            return f"{begins}: {moved}{expected}" if event.moved else None
        self.summary.microbatches_taken_over += event.taken_over
        self.expected_by_iteration.setdefault(event.iteration, before_s)
        if not event.lost:
            return f"{begins}: nobody was lost after all"
        return f"{self.left_out(event, absent)}; {expected}"

    def count(self, event: ViewBegun) -> set[int]:
        """Count who is lost and who has joined; a joiner that was passed over, and did nothing, is neither.

        Those and who was away before are left out and not lost: which they are.
        """
        absent = set()
        for node in event.lost:
            if self.began_with.get(node) == event.iteration != self.back_in.get(node):
                self.summary.nodes_joined -= 1
                absent.add(node)
            elif node in self.away:
                absent.add(node)
            else:
                self.summary.nodes_lost += 1
        self.summary.nodes_joined += len(event.joined)
        self.away = (self.away | set(event.lost)) - set(event.joined)
        self.began_with = {node: first for node, first in self.began_with.items() if node not in self.away}
        self.began_with |= dict.fromkeys(event.joined, event.iteration)
        return absent

    def left_out(self, event: ViewBegun, absent: set[int]) -> str:
        """Who was lost or, being `absent`, never there, and who does their work."""
        # Others may go on without a process that lives, such as one that has just joined and holds nothing yet.
        known = [node for node in event.lost if node in self.untold]
        self.untold.difference_update(known)
        how = ", ".join(self.how[node] if len(event.lost) == 1 else f"{node} {self.how[node]}" for node in known)
        shrunk = [
            f"stage {stage} goes on with {now} of {before}" if now else f"stage {stage} has nobody left and is skipped"
            for stage, (now, before) in enumerate(zip(event.stages, event.stages_before, strict=True))
            if now < before
        ]
        work = f"{names(event.heirs)} took over {event.taken_over} microbatches"
        if event.way == "redo":
            work = "it is begun again"
            if event.rerouted:
                work += f", {event.rerouted} microbatch{'es' * (event.rerouted > 1)} through other stages"
        lost, waited_for = (
            tuple(node for node in event.lost if (node in absent) == is_absent) for is_absent in (False, True)
        )
        told = [f"{names(lost)} lost in iteration {event.iteration}"] * bool(lost)
        if waited_for:
            told.append(f"iteration {event.iteration} goes on without {names(waited_for)}, not there yet")
        return f"{', '.join(told)}{f' ({how})' if how else ''}: {work}; {', '.join(shrunk)}"

    def step(self, metrics: IterationMetrics) -> str | None:
        """A line on what a step took in which nodes were lost; None if none was."""
        expected_s = self.expected_by_iteration.pop(metrics.iteration, None)
        if expected_s is None:
            return None
        self.summary.seconds_lost += metrics.step_s - expected_s
        return f"iteration {metrics.iteration} took {metrics.step_s:.1f} s (expected {expected_s:.1f} s)"


def names(nodes: tuple[int, ...]) -> str:
    """Nodes in words."""
    if not nodes:
        return "nobody"
    if len(nodes) == 1:
        return f"node {nodes[0]}"
    return f"nodes {', '.join(map(str, nodes[:-1]))} and {nodes[-1]}"
