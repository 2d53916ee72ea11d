"""What a node tells its launcher of the run, and writes of it into the run's folder."""

from __future__ import annotations

from dataclasses import replace

from skippipe.report.timeline import append_spans
from skippipe.report.views import append_view
from skippipe.runtime.emulation import RunClock
from skippipe.runtime.events import IterationLoss, Leaving, ViewBegun
from skippipe.runtime.executor import IterationRecord
from skippipe.runtime.figures import Figures, iteration_metrics, mean_loss
from skippipe.runtime.job import Job
from skippipe.schedule.timeline import Span
from skippipe.survival.view import View


class Reporter:
    """Reports what concerns all nodes, if this node is the first living one of its machine, and its own timeline."""

    def __init__(self, job: Job, clock: RunClock) -> None:
        self.job = job
        self.clock = clock
        self.pending: tuple[int, dict[int, Figures], float | None, str | None] | None = None
        """The last iteration: its step has not ended on all nodes yet."""
        self.newcomers: dict[int, int] = {}
        """The iteration that each node began with that has come back."""

    def speaks(self, view: View, iteration: int) -> bool:
        """Whether this node reports what concerns all; not in the first iteration that it is back for."""
        here = [node for node in view.members if node in self.job.endpoint.local]
        return self.job.node == min([node for node in here if self.newcomers.get(node, -1) < iteration] or here)

    def begin(self, view: View) -> None:
        """All nodes have met."""
        if self.speaks(view, view.first_iteration):
            append_view(self.job.folder, view.document())

    def iteration(
        self, view: View, iteration: int, figures: dict[int, Figures], perplexity: float | None, cause: str | None
    ) -> None:
        """An iteration is done here; the figures of the one before are complete with it."""
        if self.speaks(view, iteration):
            self.ended({node: row.previous_step_end for node, row in figures.items()})
            self.job.endpoint.report(IterationLoss(iteration, mean_loss(figures.values()), cause))
        # Kept by all: the next one may have to speak for the machine.
        self.pending = iteration, figures, perplexity, cause

    def ended(self, step_ends: dict[int, float]) -> None:
        """Report the last iteration, whose step has ended on every node at these times of the run."""
        if self.pending is None:
            return
        iteration, figures, perplexity, cause = self.pending
        job = self.job
        tokens = len(job.plan.paths) * job.schedule.pipeline.samples_per_microbatch * job.config.model.context
        job.endpoint.report(
            iteration_metrics(
                iteration, figures.values(), step_ends.values(), tokens, job.time_scale, perplexity, cause
            )
        )
        self.pending = None

    def leave(self, view: View, step_ends: dict[int, float]) -> None:
        """The run ends here, with the last iteration's steps at these times."""
        if self.pending is None or not self.speaks(view, self.pending[0]):
            return
        iteration, figures, *_ = self.pending
        self.ended(step_ends)
        if asked := [node for node, row in figures.items() if row.stop_asked]:
            self.job.endpoint.report(Leaving(iteration, min(asked)))

    def note(self, view: View) -> None:
        """A view was decided, and is taken up or passed over."""
        self.newcomers.update(dict.fromkeys(view.joined, view.first_iteration))

    def view(self, view: View, before: View, expected_step_s: float) -> None:
        """This node has taken up a view, whose iterations after the first have steps of so many seconds."""
        if not self.speaks(view, view.first_iteration):
            return
        # Other paths than before have no heirs: the iteration is another one, or a stage is skipped.
        is_same = view.way == "takeover" and view.plan.path_length == before.plan.path_length
        pairs = list(zip(view.plan.paths, before.plan.paths, strict=True)) if is_same else []
        taken_over = {node: 0 for node in view.members}
        for path, earlier in pairs:
            for node, other in zip(path, earlier, strict=True):
                taken_over[node] += node != other
        resumed = replace(view, resumed_s=self.clock.shared(self.clock.now()))
        append_view(self.job.folder, resumed.document())
        self.job.endpoint.report(
            ViewBegun(
                number=view.number,
                iteration=view.first_iteration,
                lost=view.lost,
                joined=view.joined,
                moved=view.moved,
                way=view.way,
                heirs=tuple(node for node, count in taken_over.items() if count),
                taken_over=sum(path != earlier for path, earlier in pairs),
                stages=tuple(len(stage) for stage in view.plan.stages),
                stages_before=tuple(len(stage) for stage in before.plan.stages),
                expected_step_s=expected_step_s,
            )
        )

    def timeline(self, iteration: int, record: IterationRecord, synced: Span) -> None:
        """Add this node's spans to the run's timeline."""
        scale = self.job.time_scale
        spans = [
            replace(span, start_s=self.clock.shared(span.start_s) / scale, end_s=self.clock.shared(span.end_s) / scale)
            for span in [*record.spans, synced]
        ]
        append_spans(self.job.folder, iteration, spans)
