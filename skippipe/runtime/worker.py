"""What a node does in training: executor, sync and optimizer, iteration after iteration."""

from __future__ import annotations

import hashlib
import logging
import math
import signal

from skippipe.model.checkpoint import save_stage, set_aside
from skippipe.model.checkpoint_meta import Meta
from skippipe.model.feedback import save_feedback
from skippipe.runtime.executor import IterationRecord
from skippipe.runtime.figures import Figures, Rows, figures_of, share_figures
from skippipe.runtime.gradients import Exchange
from skippipe.runtime.member import Member
from skippipe.runtime.slowness import slowness
from skippipe.runtime.soundness import Poison, first_cause, is_finite
from skippipe.schedule.timeline import SYNC, Span
from skippipe.transport.inbox import PeerLostError, ViewChangedError

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0


class Worker(Member):
    """One node of a run: its iterations."""

    def train(self) -> None:
        """Run all iterations that are not done yet, or until somebody asks to stop."""
        for iteration in range(self.first, self.job.config.iterations):
            figures, record, synced = self.iterate(iteration)
            self.work.begin(f"the optimizer step of iteration {iteration}")
            cause = self.step(iteration, figures)
            self.step_end, self.done = self.clock.shared(self.clock.now()), iteration + 1
            self.reporter.timeline(self.view, iteration, record, synced)
            stopping = any(row.stop_asked for row in figures.values())
            perplexity = None if self.drops.diverged else self.after_step(iteration + 1, stopping)
            self.reporter.iteration(self.view, iteration, figures, perplexity, cause)
            if stopping or self.drops.diverged:
                break
        self.work.wait("the end of the run")
        if self.drops.diverged and self.reporter.speaks(self.view, self.done):
            # Before the figures are shared, so that every machine finds the same newest checkpoint on its disk.
            set_aside(self.job.folder, self.drops.proven + 1)
        self.reporter.leave(self.view, self.share_ends())
        self.links.part()
        self.links.drain(DRAIN_SECONDS)

    def iterate(self, iteration: int) -> tuple[dict[int, Figures], IterationRecord, Span]:
        """An iteration up to the optimizer step, whoever is lost meanwhile: figures, what was done here, the sync."""
        self.begin(iteration)
        self.shard.optimizer.zero()
        self.executor.begin(iteration, self.plans.of(self.view, iteration))
        while True:
            try:
                record = self.executor.run()
                self.work.begin(f"the sync of iteration {iteration}")
                rows, synced = self.sync(iteration, record)
            except ViewChangedError:
                begins_again = self.take_up(iteration)
                if self.view.committed < iteration:
                    if begins_again:
                        self.begin_again()
                    else:
                        self.shard.optimizer.undo_sync()
                    continue
                # The others have the figures, so the sync is over here too.
                record, rows = self.executor.record, {node: list(row) for node, row in self.view.figures.items()}
                synced = Span(self.job.node, SYNC, None, self.clock.now(), self.clock.now())
            # Also if the figures came with a view: this node has shared them.
            self.bytes_reported = self.links.bytes_sent
            self.executor.finish()
            self.holding.former = None
            self.microbatches.go_on(rows)
            return figures_of(rows), record, synced

    def begin_again(self) -> None:
        """Drop what was done of the iteration: it is redone from its beginning in the view."""
        self.shard.optimizer.zero()
        self.executor.begin_again(self.view.plan)

    def share_ends(self) -> dict[int, float]:
        """When everyone's last step ended, in the run's time; this node's alone if somebody is lost now."""
        mine = [self.step_end]
        while True:
            try:
                rows = self.group.share(self.links, self.inbox.iteration, Exchange.ENDS, mine)
            except ViewChangedError:
                self.take_up(self.inbox.iteration)
            except PeerLostError as error:
                logger.warning("the end of the last step is not known of all nodes: %s", error)
                return {self.job.node: self.step_end}
            else:
                return {node: row[0] for node, row in rows.items()}

    def step(self, iteration: int, figures: dict[int, Figures]) -> str | None:
        """Update the weights, or leave weights and optimizer as they are if a number was not finite anywhere: why."""
        cause = first_cause({node: row.poison for node, row in figures.items()}, self.view.plan.stage_of())
        self.drops.count(iteration, cause)
        if cause is None:
            self.shard.optimizer.step(iteration, sum(row.squared_norm for row in figures.values()))
            if self.synced_with is not None:
                self.synced_with.commit()
        else:
            logger.warning("iteration %d dropped: %s", iteration, cause)
        return cause

    def after_step(self, done: int, stopping: bool) -> float | None:
        """Save and validate if it is time to, after so many iterations; the perplexity if it was measured."""
        config = self.job.config
        last = stopping or done == config.iterations
        every = config.checkpoint_every
        is_whole = all(self.view.plan.stages)
        # While a stage is lost no checkpoint is complete; the last one is all that the run leaves of the others.
        if every is not None and (last or (is_whole and every and done % every == 0)):
            self.save(done, self.group.leads, is_whole)
        # Whoever had the figures before a takeover has left the validation for it.
        full_model = self.shard.full_model
        if full_model is None or done % config.evaluate_every or self.view.committed >= done - 1:
            return None
        self.work.begin(f"the validation after iteration {done}")
        try:
            return full_model.perplexity(self.group, self.links, done - 1)
        except ViewChangedError:
            logger.warning("the validation after iteration %d was left: the nodes have changed", done)
            self.take_up(done - 1)
            return None

    def save_what_is_left(self) -> None:
        """Save this node's stage as of its last step, if too few are left in reach to go on, and it is the first there.

        If they hold all stages the checkpoint is a whole one. The launcher's SIGTERM waits for it.
        """
        in_reach, replicas = self.survivors.in_reach, self.view.plan.stages[self.shard.index]
        if self.job.config.checkpoint_every is not None and self.done and in_reach:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            leads = self.job.node == min({self.job.node, *replicas} & set(in_reach), default=None)
            logger.warning("saving after %d iterations: nodes %s are left in reach", self.done, in_reach)
            self.save(self.done, leads, False)

    def save(self, done: int, leads: bool, is_whole: bool) -> None:
        """Save this node's part of a checkpoint after so many iterations; its stage if it `leads` there.

        One that may not be whole removes no older ones.
        """
        job, shard = self.job, self.shard
        codec = shard.codec
        digest = hashlib.sha256(job.schedule.to_json().encode()).hexdigest()
        of_run = len(job.plan.stages), job.prepared.vocabulary, job.setting, digest, self.run, job.config
        meta = Meta(done, *of_run, **self.microbatches.parts.place(done))
        # Weights that gave no finite numbers yet, or lack a stage, must not push out those that did.
        proven = is_whole and self.drops.in_a_row == 0
        if codec is not None or leads:
            self.work.begin(f"saving the checkpoint of iteration {done}")
        if codec is not None:
            save_feedback(job.folder, meta, self.replica, codec.left_out, remove_old=proven)
        if leads:
            save_stage(job.folder, meta, shard.stage, shard.optimizer, job.prepared.tokenizer, remove_old=proven)

    def sync(self, iteration: int, record: IterationRecord) -> tuple[Rows, Span]:
        """Sync the stage's gradient and learn everyone's figures."""
        now = self.clock.now()
        first = min((span.start_s for span in record.spans), default=now)
        last = max((span.end_s for span in record.spans), default=now)
        visits = self.view.plan.stage_visits()[self.shard.index]
        idle = not record.spans
        poison = record.poison
        if poison is None and not is_finite(self.shard.optimizer.flat):
            poison = Poison.WEIGHT_GRADIENT
        self.shard.optimizer.begin_sync()
        self.synced_with = self.group.codec
        begun = 0.0 if idle else last
        optimizer, device = self.shard.optimizer, self.executor.device
        done = self.group.sync(self.links, iteration, optimizer, visits, begun, self.emulation, self.clock, device)
        squared_norm = self.shard.optimizer.squared_norm() if self.group.leads else 0.0
        if poison is None and not math.isfinite(squared_norm):
            poison = Poison.SUM
        mine = Figures(
            squared_norm=squared_norm,
            loss_sum=sum(record.losses),
            microbatches=float(len(record.losses)),
            first_forward=math.inf if idle else self.clock.shared(first),
            last_backward=0.0 if idle else self.clock.shared(last),
            previous_step_end=self.step_end,
            bytes_sent=float(self.links.bytes_sent - self.bytes_reported),
            stop_asked=float(self.stop_asked),
            poison=float(poison or 0),
            slowness=slowness(record.spans, self.job.schedule.costs, self.job.node),
        )
        rows = share_figures(self.group, self.links, iteration, mine, self.microbatches.ends())
        self.work.wait(f"the view of iteration {iteration}")
        self.pace.commit(iteration, rows)
        return rows, Span(self.job.node, SYNC, None, last, done)
