"""Nodes that were struck and have come back: what the files of their run tell of each."""

from __future__ import annotations

import signal
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.exact import moments, moments_of
from skippipe.report.metrics import IterationMetrics, read_metrics
from skippipe.report.timeline import read_spans
from skippipe.report.views import RunView, read_views
from skippipe.schedule.timeline import SYNC, Span

NOTICED = {signal.SIGKILL: "node {} has ended", signal.SIGSTOP: "node {} can't be reached"}
"""What the first node that knows writes into its log."""


@dataclass(frozen=True)
class Blow:
    """A node that was struck."""

    node: int
    by: signal.Signals
    at: float
    """In seconds of the epoch."""
    view: int
    """The newest one then."""


@dataclass(frozen=True)
class Return:
    """What became of it; steps are over the expected ones."""

    node: int
    by: str
    """The signal's name."""
    noticed_s: float
    """Real seconds until the first node knew."""
    agreed_s: float
    """Until the last one had the next view."""
    state_s: float
    """Until its next process had its stage's state."""
    step: float
    """In which it was struck."""
    back_in: int
    """The iteration at whose beginning it got its state."""
    useful_after: int
    """Iterations from there on in which it did nothing."""
    return_step: float
    """Of the iteration that it was back in."""

    def row(self) -> str:
        """As a line of the table."""
        times = f"{self.noticed_s:.3f} | {self.agreed_s:.3f} | {self.state_s:.1f}"
        steps = f"{self.step:.2f} | {self.back_in} | {self.useful_after} | {self.return_step:.3f}"
        return f"| {self.node} | {self.by} | {times} | {steps} |"


def views_of_blow(blow: Blow, views: Sequence[RunView]) -> tuple[RunView, RunView]:
    """The first view without the node, and the first one after it that had begun with it again; LookupError if not."""
    lost = next((view for view in views if view.number > blow.view and blow.node not in view.members), None)
    if lost is None:
        raise LookupError(f"nobody missed node {blow.node}")
    later = (view for view in views if view.number > lost.number and blow.node in view.members and view.has_begun)
    back = next(later, None)
    if back is None:
        raise LookupError(f"node {blow.node} is not back")
    return lost, back


def first_useful(node: int, back: RunView, spans: Mapping[int, Iterable[Span]]) -> int:
    """Iterations from a node's return on until it did a task; LookupError if it never did."""
    done = [
        iteration
        for iteration, own in spans.items()
        if iteration >= back.iteration and any(span.node == node and span.kind != SYNC for span in own)
    ]
    if not done:
        raise LookupError(f"node {node} has done nothing since")
    return min(done) - back.iteration


def undisturbed_step(views: Sequence[RunView], metrics: Sequence[IterationMetrics], nodes: int) -> float:
    """Median of the steps over the expected, of iterations that all nodes did and that no view began or ended in."""
    begun = [view for view in views if view.has_begun]
    quiet = []
    for line in metrics:
        view = [view for view in begun if view.iteration <= line.iteration][-1]
        is_edge = any(other.iteration - line.iteration in (0, 1) for other in views)
        if len(view.members) == nodes and not is_edge:
            quiet.append(line.step_s / view.expected_step_s)
    return statistics.median(quiet)


def after(found: Iterable[float], blow: Blow) -> list[float]:
    """Seconds from a blow on of what came later."""
    return [moment - blow.at for moment in found if moment >= blow.at]


def return_of(folder: Path, blow: Blow, nodes: int) -> Return:
    """What became of a blow, as far as the run's files tell; LookupError if they don't yet."""
    views, metrics = read_views(folder), {line.iteration: line for line in read_metrics(folder)}
    lost, back = views_of_blow(blow, views)
    noticed = after(moments(folder, nodes, NOTICED[blow.by].format(blow.node)), blow)
    ready = after(moments_of(folder, blow.node, f"node {blow.node} ready in"), blow)
    if not noticed or not ready:
        raise LookupError(f"no log says when node {blow.node} was noticed, and when it was ready")
    return Return(
        blow.node,
        blow.by.name,
        min(noticed),
        max(after(moments(folder, nodes, f"view {lost.number} from"), blow)),
        min(ready),
        metrics[lost.iteration].step_s / views[lost.number - 1].expected_step_s,
        back.iteration,
        first_useful(blow.node, back, read_spans(folder)),
        metrics[back.iteration].step_s / back.expected_step_s,
    )
