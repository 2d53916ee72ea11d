"""What the user sees of a run while its nodes work."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tqdm import tqdm

from skippipe.cli.losses import Losses
from skippipe.cli.saved import Saved, saved_after
from skippipe.config import RunConfig
from skippipe.report.metrics import IterationMetrics, RunSummary, append_metrics, write_summary
from skippipe.runtime.events import (
    Event,
    FirstRestored,
    IterationLoss,
    Leaving,
    NodeBack,
    NodeSlow,
    Ready,
    Resumed,
    ViewBegun,
)
from skippipe.runtime.processes import NodeFailedError
from skippipe.schedule import Schedule

IN_SIGHT_SECONDS, IN_A_FILE_SECONDS = 0.1, 60.0
"""Between two pictures of the bar; in a file each of them stays."""


class Progress:
    """What the user sees while the nodes work: a line when they are ready, a bar, a summary."""

    def __init__(
        self,
        schedule: Schedule,
        setting: str,
        config: RunConfig,
        folder: Path,
        local: range,
        began: float,
        joins: bool = False,
        writes_summary: bool = True,
    ) -> None:
        """For this machine's nodes `local`, which may join a run that goes on; `began` is in monotonic seconds.

        Where another launcher has been in the folder from the beginning, that `writes_summary`.
        """
        self.plan = schedule.settings[setting]
        self.schedule, self.setting, self.folder, self.began = schedule, setting, folder, began
        self.nodes, self.writes_summary = len(local), writes_summary
        self.lost_stages: list[int] = []
        self.lines: list[IterationMetrics] = []
        self.told: set[int] = set()
        """Iterations of these lines; whoever speaks after a node that has died tells the last ones again."""
        self.views: set[int] = set()
        """Numbers of those that were told, likewise."""
        self.ready = 0
        self.leaving: Leaving | None = None
        """Why the nodes end before the last iteration, if they do."""
        self.losses = Losses(self.plan.expected_step_s, local, joins)
        # Without its monitor thread, which would poll in the background.
        tqdm.monitor_interval = 0
        self.in_sight = sys.stderr.isatty()
        self.bar = tqdm(
            total=config.iterations,
            unit="step",
            dynamic_ncols=True,
            desc="joining the others" if joins else "starting nodes",
            mininterval=IN_SIGHT_SECONDS if self.in_sight else IN_A_FILE_SECONDS,
        )
        self.shown: dict[str, str] = {"expected": f"{self.plan.expected_step_s:.1f} s"}

    def on_event(self, event: Event) -> None:
        """Take one event from a node."""
        match event:
            case Ready():
                self.ready += 1
                self.bar.set_description(f"{self.ready} of {self.nodes} nodes ready")
                if self.ready == self.nodes:
                    self.bar.write(f"{self.nodes} nodes ready {time.monotonic() - self.began:.1f} s after the start")
                    self.bar.set_description(self.setting)
            case Resumed():
                fetched = (
                    f"; {event.files} files, {event.size / 1e6:.1f} MB, came from other machines" if event.files else ""
                )
                self.bar.write(f"going on from {event.folder}{fetched}")
                for warning in event.warnings:
                    self.bar.write(warning, file=sys.stderr)
            case IterationLoss():
                if event.dropped is not None:
                    self.bar.write(f"iteration {event.iteration} dropped: {event.dropped}", file=sys.stderr)
                self.shown["loss"] = f"{event.loss:.3f}"
                if not self.bar.n:
                    # A run that is resumed or joined has done these before.
                    self.bar.initial = self.bar.n = event.iteration
                self.bar.set_postfix(self.shown, refresh=False)
                self.bar.update(event.iteration + 1 - self.bar.n)
            case ViewBegun():
                if event.number in self.views:
                    return
                self.views.add(event.number)
                self.lost_stages = [stage for stage, nodes in enumerate(event.stages) if not nodes]
                if (line := self.losses.view(event)) is not None:
                    self.bar.write(line, file=sys.stderr)
                self.shown["expected"] = f"{event.expected_step_s:.1f} s"
            case NodeBack():
                self.bar.write(self.losses.back(event), file=sys.stderr)
                if self.ready < self.nodes:
                    self.ready += 1
                    self.bar.set_description(self.setting)
            case FirstRestored():
                self.bar.write(self.losses.restored(event), file=sys.stderr)
            case NodeSlow():
                self.bar.write(self.losses.slow(event), file=sys.stderr)
            case IterationMetrics():
                if event.iteration in self.told:
                    return
                self.told.add(event.iteration)
                self.lines.append(event)
                append_metrics(self.folder, event)
                if (line := self.losses.step(event)) is not None:
                    self.bar.write(line, file=sys.stderr)
                self.shown["step"] = f"{event.step_s:.1f} s"
                self.bar.set_postfix(self.shown, refresh=self.in_sight)
            case Leaving():
                self.leaving = event
            case _:
                raise AssertionError(f"{event} is no event of a training run")

    @property
    def is_alone(self) -> bool:
        """Whether all nodes are on this machine."""
        return self.nodes == self.schedule.nodes

    def saved_after(self, done: int) -> Saved:
        """What the run has left of the checkpoint after so many iterations."""
        return saved_after(self.folder, done, self.is_alone, self.lost_stages)

    def survives(self, failed: NodeFailedError) -> bool:
        """Whether the others go on without a node; they do once all are there."""
        if not failed.crashed or self.ready < self.nodes:
            return False
        self.losses.lost(failed.node, failed.how)
        return True

    def stays_away(self, node: int) -> None:
        """A node is not started again any more."""
        self.bar.write(self.losses.stays_away(node), file=sys.stderr)

    def finish(self) -> None:
        """Write and print the summary, if an iteration was done."""
        self.bar.close()
        if not self.lines:
            return
        summary = RunSummary.of(self.setting, self.schedule.nodes, self.plan, self.lines, self.losses.summary)
        if self.writes_summary:
            write_summary(self.folder, summary)
        print(f"\n{'setting':24} {summary.setting}, {summary.nodes} nodes, {summary.iterations} iterations")
        print(f"{'loss':24} {summary.loss_first:.3f} first, {summary.loss_last:.3f} last (nats a token)")
        for name, measured, expected in (
            ("iteration", summary.measured_iteration_s, summary.expected_iteration_s),
            ("step", summary.measured_step_s, summary.expected_step_s),
        ):
            print(f"{name:24} {measured:.2f} s measured (median), {expected:.2f} s expected")
        print(f"{'measured over expected':24} {summary.measured_over_expected:.3f} (steps)")
        print(f"{'tokens a second':24} {summary.tokens_per_second:.0f} (real time)")
        print(f"{'bytes sent':24} {summary.bytes_sent / 1e6:.1f} MB")
        if summary.dropped_iterations:
            print(f"{'dropped iterations':24} {summary.dropped_iterations} of {summary.iterations} (metrics.jsonl)")
        if summary.nodes_lost:
            lost = f"{summary.nodes_lost} in {summary.views} views; {summary.microbatches_taken_over} microbatches"
            print(f"{'nodes lost':24} {lost} taken over, {summary.seconds_lost:.1f} s more than expected (views.jsonl)")
        if summary.nodes_joined:
            print(f"{'nodes that came back':24} {summary.nodes_joined}")
        print(f"{'run folder':24} {self.folder}")
