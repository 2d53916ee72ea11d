"""What a node tells its launcher of the run, and writes of it into the run's folder."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from skippipe.report.metrics import IterationMetrics
from skippipe.report.timeline import append_spans
from skippipe.report.views import append_views
from skippipe.runtime.emulation import RunClock
from skippipe.runtime.events import IterationLoss, Leaving, ViewBegun
from skippipe.runtime.executor import IterationRecord
from skippipe.runtime.figures import Figures, iteration_metrics, mean_loss
from skippipe.runtime.job import Job
from skippipe.runtime.slowness import Watch
from skippipe.schedule.timeline import Span
from skippipe.survival.view import View

MOST_SEEN, MOST_LINES = 100, 10
"""Views and iterations that are kept to be told; far more than there are between one node that speaks and the next."""


class Reporter:
    """Reports what concerns all nodes, if this node is the first living one of its launcher, and its own timeline."""

    def __init__(self, job: Job, clock: RunClock, is_here: Callable[[int], bool]) -> None:
        """`is_here` says whether a node's process has the same launcher."""
        self.job = job
        self.clock = clock
        self.is_here = is_here
        self.watch = Watch()
        self.pending: tuple[int, dict[int, Figures], float | None, str | None] | None = None
        """The last iteration: its step has not ended on all nodes yet."""
        self.lines: deque[IterationMetrics] = deque(maxlen=MOST_LINES)
        """Of the last iterations, if another node speaks: it may die before it has reported them."""
        self.begun: deque[ViewBegun] = deque(maxlen=MOST_LINES)
        """Of the last views, likewise."""
        self.newcomers: dict[int, int] = {}
        """The iteration that each node began with that has come back."""
        self.seen: deque[dict[str, Any]] = deque(maxlen=MOST_SEEN)
        """The last views as they are written; whoever spoke for the machine may have died before it wrote them."""

    def speaks(self, view: View, iteration: int) -> bool:
        """Whether this node reports what concerns all; not in the first iteration that it is back for."""
        here = [node for node in view.members if self.is_here(node)]
        return self.job.node == min([node for node in here if self.newcomers.get(node, -1) < iteration] or here)

    def begin(self, view: View) -> None:
        """All nodes have met."""
        self.seen.append(view.document())
        if self.speaks(view, view.first_iteration):
            append_views(self.job.folder, self.seen)

    def iteration(
        self, view: View, iteration: int, figures: dict[int, Figures], perplexity: float | None, cause: str | None
    ) -> None:
        """An iteration is done here; the figures of the one before are complete with it."""
        self.complete({node: row.previous_step_end for node, row in figures.items()})
        slow = self.watch.look(iteration, {node: row.slowness for node, row in figures.items()})
        if self.speaks(view, iteration):
            for event in slow:
                self.job.endpoint.report(event)
            self.report_lines()
            self.job.endpoint.report(IterationLoss(iteration, mean_loss(figures.values()), cause))
        self.pending = iteration, figures, perplexity, cause

    def complete(self, step_ends: dict[int, float]) -> None:
        """The last iteration's step has ended on every node at these times of the run."""
        if self.pending is None:
            return
        iteration, figures, perplexity, cause = self.pending
        job = self.job
        tokens = len(job.plan.paths) * job.schedule.pipeline.samples_per_microbatch * job.config.model.context
        self.lines.append(
            iteration_metrics(
                iteration, figures.values(), step_ends.values(), tokens, job.time_scale, perplexity, cause
            )
        )
        self.pending = None

    def report_lines(self) -> None:
        """Tell the launcher the last iterations' figures; it may have some of them from a node that has died."""
        for line in self.lines:
            self.job.endpoint.report(line)
        self.lines.clear()

    def leave(self, view: View, step_ends: dict[int, float]) -> None:
        """The run ends here, with the last iteration's steps at these times."""
        if self.pending is None or not self.speaks(view, self.pending[0]):
            return
        iteration, figures, *_ = self.pending
        self.complete(step_ends)
        self.report_lines()
        if asked := [node for node, row in figures.items() if row.stop_asked]:
            self.job.endpoint.report(Leaving(iteration, min(asked)))

    def views(self, views: Sequence[View], before: View, expected_step_s: float) -> None:
        """This node has gone on from a view to the last of these; the others were decided and are passed over.

        Iterations after the first one of the last view have steps of so many seconds.
        """
        newest = views[-1]
        for view in views:
            self.newcomers.update(dict.fromkeys(view.joined, view.first_iteration))
            resumed_s = self.clock.shared(self.clock.now()) if view is newest else None
            self.seen.append(replace(view, resumed_s=resumed_s).document())
        known = [before]
        for place, view in enumerate(views):
            # Who joined with a view that another one replaced has joined with that one.
            again = {node for later in views[place + 1 :] for node in later.joined}
            stayed = view.joined and set(view.joined) <= set(newest.members) - again
            if view is newest or view.lost or stayed:
                base = next(other for other in reversed(known) if other.first_iteration <= view.first_iteration)
                following_s = expected_step_s if view is newest else view.plan.expected_step_s
                self.begun.append(view_begun(view, base, following_s))
            known.append(view)
        if self.speaks(newest, newest.first_iteration):
            append_views(self.job.folder, self.seen)
            # The launcher may have some of them from a node that has died.
            for event in self.begun:
                self.job.endpoint.report(event)
            self.begun.clear()

    def timeline(self, view: View, iteration: int, record: IterationRecord, synced: Span) -> None:
        """Add this node's spans of an iteration that ended in a view to the run's timeline, if all nodes do so."""
        if iteration % self.job.config.timeline_every and iteration != view.first_iteration:
            return
        scale = self.job.time_scale
        spans = [
            replace(span, start_s=self.clock.shared(span.start_s) / scale, end_s=self.clock.shared(span.end_s) / scale)
            for span in [*record.spans, synced]
        ]
        append_spans(self.job.folder, iteration, spans)


def view_begun(view: View, base: View, expected_step_s: float) -> ViewBegun:
    """What a launcher is told of a view; `base` is the one whose plan it was made from."""
    # Other paths than before have no heirs: they are of another plan, or a stage is skipped.
    is_same = view.way == "takeover" and view.plan.path_length == base.plan.path_length
    pairs = list(zip(view.plan.paths, base.plan.paths, strict=True)) if is_same else []
    now, before = view.plan.stage_of(), base.plan.stage_of()
    rerouted = sum(
        {now[node] for node in path} != {before[node] for node in earlier}
        for path, earlier in zip(view.plan.paths, base.plan.paths, strict=True)
    )
    taken_over = {node: 0 for node in view.members}
    for path, earlier in pairs:
        for node, other in zip(path, earlier, strict=True):
            taken_over[node] += node != other
    return ViewBegun(
        number=view.number,
        iteration=view.first_iteration,
        lost=view.lost,
        joined=view.joined,
        moved=view.moved,
        way=view.way,
        heirs=tuple(node for node, count in taken_over.items() if count),
        taken_over=sum(path != earlier for path, earlier in pairs),
        stages=tuple(len(stage) for stage in view.plan.stages),
        stages_before=tuple(len(stage) for stage in base.plan.stages),
        expected_step_s=expected_step_s,
        rerouted=rerouted,
    )
