"""A node's process: stage, links, executor, sync and optimizer, iteration after iteration."""

from __future__ import annotations

import hashlib
import logging
import math
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from skippipe.config import RunConfig
from skippipe.data.batches import Batches, Prepared
from skippipe.model.checkpoint import Checkpoint, load_stage, save_stage, set_aside
from skippipe.model.checkpoint_meta import Meta
from skippipe.model.feedback import Replica, load_feedback, save_feedback
from skippipe.model.optimizer import StageOptimizer
from skippipe.model.stage import Stage
from skippipe.report.metrics import IterationMetrics
from skippipe.report.timeline import append_spans
from skippipe.runtime.emulation import Emulation, RunClock
from skippipe.runtime.endpoint import STOP_SIGNAL, Endpoint
from skippipe.runtime.events import IterationLoss, Leaving, Ready
from skippipe.runtime.executor import Executor, IterationRecord, expected_senders
from skippipe.runtime.figures import WIDTHS, Figures, iteration_metrics, mean_loss, run_name, share_figures
from skippipe.runtime.full_model import FullModel
from skippipe.runtime.gradients import Exchange, Group, largest_message
from skippipe.runtime.soundness import Drops, Poison, first_cause, is_finite
from skippipe.schedule import Plan, Schedule
from skippipe.schedule.compression import compressed_links
from skippipe.schedule.timeline import SYNC, Span
from skippipe.transport.clocks import Clock
from skippipe.transport.inbox import Inbox
from skippipe.transport.message import HEADER, Encoding

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
SLOWEST_STEP_FACTOR = 10.0
"""A node may work on one thing for this many expected steps before it is taken for hung."""


@dataclass(frozen=True)
class Job:
    """Everything that a node's process is told."""

    endpoint: Endpoint
    setting: str
    schedule: Schedule
    config: RunConfig
    prepared: Prepared
    checkpoint: Checkpoint | None
    """Where the run goes on from."""

    @property
    def node(self) -> int:
        """The node's number."""
        return self.endpoint.node

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.endpoint.folder

    @property
    def plan(self) -> Plan:
        """The setting that is run."""
        return self.schedule.settings[self.setting]

    @property
    def first_iteration(self) -> int:
        """The iteration that the run begins with."""
        return self.checkpoint.meta.iteration if self.checkpoint else 0

    @property
    def time_scale(self) -> float:
        """What measured times are divided by."""
        return self.config.emulation.time_scale if self.config.emulation.enabled else 1.0


class Worker:
    """One node of a run."""

    def __init__(self, job: Job) -> None:
        """Build the shard, open the links, meet the others."""
        self.job = job
        config, plan, node = job.config, job.plan, job.node
        self.stage_index = plan.stage_of()[node]
        self.stage = Stage(config.model, self.stage_index, job.prepared.vocabulary, config.seed).to(config.device)
        self.optimizer = StageOptimizer(self.stage, config.optimizer)
        if job.checkpoint is not None:
            load_stage(job.checkpoint, self.stage, self.optimizer)
        self.first = job.checkpoint.meta.iteration if job.checkpoint else 0
        self.replica = Replica(self.stage_index, node, plan.stages[self.stage_index])
        self.drops = Drops(config.optimizer.dropped_in_a_row, self.first)
        self.stop_asked = False
        signal.signal(STOP_SIGNAL, self.ask_to_stop)
        messages, sync_s = 2 * len(plan.paths) * plan.path_length, plan.sync_s[self.stage_index]
        emulation = Emulation.of(config.emulation, job.schedule.costs, node, sync_s, messages)
        self.emulation = emulation
        clock, senders = Clock(), expected_senders(plan, node)
        samples = job.schedule.pipeline.samples_per_microbatch
        nodes = range(job.schedule.nodes)
        self.full_model = FullModel(self.stage, job.prepared, samples) if config.evaluate_every else None
        hidden = self.full_model.shapes if self.full_model else []
        self.group = Group(plan, node, len(self.optimizer.flat), hidden, config.compression.sync)
        if job.checkpoint is not None and self.group.codec is not None:
            load_feedback(job.checkpoint, config, self.replica, self.group.codec.left_out)
        together, hop_from_s = self.group.expected(WIDTHS), emulation.hop_from_s
        self.inbox = Inbox(senders, lambda sender: hop_from_s[sender], emulation.queue_s, clock, self.first, together)
        compressed = compressed_links(config.compression, job.schedule)[node]
        encoding = Encoding[config.compression.encoding.upper()]
        encodings = {other: encoding for other in nodes if compressed[other]}
        largest = max(
            HEADER.size + 4 * samples * config.model.context * config.model.d_model, largest_message(together)
        )
        patience = config.peers.connect_seconds + SLOWEST_STEP_FACTOR * plan.expected_step_s * job.time_scale
        self.links = job.endpoint.open_links(self.inbox, largest, encodings, work_seconds=patience)
        self.work = self.links.work
        self.clock = RunClock(clock, self.links.axis_offset)
        origins = plan.stages[0]
        batches = None
        if node in origins:
            batches = Batches(
                job.prepared, origins.index(node), len(origins), samples, config.model.context, config.seed
            )
        self.executor = Executor(
            node, plan, self.stage, batches, self.inbox, self.links.send, emulation, clock, self.work
        )
        receivers = {other for other in nodes if node in expected_senders(plan, other).values()} | self.group.peers()
        if not job.endpoint.with_first_node:
            # Its clock is the run's time.
            receivers.add(0)
        self.work.wait("the other nodes")
        # All of them now: nothing is connected in the middle of an iteration.
        self.links.connect(sorted(receivers))
        self.run = run_name(self.group, self.links, self.first)
        self.bytes_reported = 0
        job.endpoint.report(Ready(node))

    def ask_to_stop(self, *_: object) -> None:
        """Remember that this process was told to save and leave."""
        self.stop_asked = True

    def train(self) -> None:
        """Run all iterations that are not done yet, or until somebody asks to stop."""
        step_end, pending = 0.0, None
        endpoint = self.job.endpoint
        for iteration in range(self.first, self.job.config.iterations):
            self.optimizer.zero()
            record = self.executor.run_iteration(iteration)
            self.work.wait(f"the sync of iteration {iteration}")
            figures, synced = self.sync(iteration, record, step_end)
            self.work.begin(f"the optimizer step of iteration {iteration}")
            cause = self.step(iteration, figures)
            step_end = self.clock.shared(self.clock.now())
            self.write_timeline(iteration, record, synced)
            stopping = any(row.stop_asked for row in figures)
            perplexity = None if self.drops.diverged else self.after_step(iteration + 1, stopping)
            if endpoint.first_here:
                if pending is not None:
                    endpoint.report(self.metrics(*pending, [row.previous_step_end for row in figures]))
                pending = (iteration, figures, perplexity, cause)
                endpoint.report(IterationLoss(iteration, mean_loss(figures), cause))
            if stopping or self.drops.diverged:
                break
        self.work.wait("the end of the run")
        if self.drops.diverged and self.job.node == self.job.plan.stages[0][0]:
            # Before the figures are shared, so that every machine finds the same newest checkpoint.
            set_aside(self.job.folder, self.drops.proven + 1)
        ends = [row[0] for row in self.group.share(self.links, self.inbox.iteration, Exchange.ENDS, [step_end])]
        if endpoint.first_here and pending is not None:
            endpoint.report(self.metrics(*pending, ends))
            if asked := [node for node, row in enumerate(pending[1]) if row.stop_asked]:
                endpoint.report(Leaving(pending[0], asked[0]))
        self.links.drain(DRAIN_SECONDS)

    def step(self, iteration: int, figures: list[Figures]) -> str | None:
        """Update the weights, or leave weights and optimizer as they are if a number was not finite anywhere: why."""
        cause = first_cause([row.poison for row in figures], self.job.plan.stage_of())
        self.drops.count(iteration, cause)
        if cause is None:
            self.optimizer.step(iteration, sum(row.squared_norm for row in figures))
            if self.group.codec is not None:
                self.group.codec.commit()
        else:
            logger.warning("iteration %d dropped: %s", iteration, cause)
        return cause

    def after_step(self, done: int, stopping: bool) -> float | None:
        """Save and validate if it is time to, after so many iterations; the perplexity if it was measured."""
        config = self.job.config
        last = stopping or done == config.iterations
        if config.checkpoint_every and (last or done % config.checkpoint_every == 0):
            self.save(done)
        if self.full_model is None or done % config.evaluate_every:
            return None
        # Its nodes wait for one another.
        self.work.wait(f"the validation after iteration {done}")
        return self.full_model.perplexity(self.group, self.links, done - 1)

    def save(self, done: int) -> None:
        """Save this node's part of a checkpoint after so many iterations."""
        job, codec = self.job, self.group.codec
        digest = hashlib.sha256(job.schedule.to_json().encode()).hexdigest()
        meta = Meta(done, len(job.plan.stages), job.prepared.vocabulary, job.setting, digest, self.run, job.config)
        # Weights that gave no finite numbers yet must not push out those that did.
        proven = self.drops.in_a_row == 0
        if codec is not None or self.group.leads:
            self.work.begin(f"saving the checkpoint of iteration {done}")
        if codec is not None:
            save_feedback(job.folder, meta, self.replica, codec.left_out, remove_old=proven)
        if self.group.leads:
            save_stage(job.folder, meta, self.stage, self.optimizer, job.prepared.tokenizer, remove_old=proven)

    def sync(self, iteration: int, record: IterationRecord, previous_step_end: float) -> tuple[list[Figures], Span]:
        """Sync the stage's gradient and learn everyone's figures."""
        now = self.clock.now()
        first = min((span.start_s for span in record.spans), default=now)
        last = max((span.end_s for span in record.spans), default=now)
        visits = self.job.plan.stage_visits()[self.stage_index]
        idle = not record.spans
        poison = record.poison
        if poison is None and not is_finite(self.optimizer.flat):
            poison = Poison.WEIGHT_GRADIENT
        begun = 0.0 if idle else last
        done = self.group.sync(self.links, iteration, self.optimizer, visits, begun, self.emulation, self.clock)
        squared_norm = self.optimizer.squared_norm() if self.group.leads else 0.0
        if poison is None and not math.isfinite(squared_norm):
            poison = Poison.SUM
        mine = Figures(
            squared_norm=squared_norm,
            loss_sum=sum(record.losses),
            microbatches=float(len(record.losses)),
            first_forward=math.inf if idle else self.clock.shared(first),
            last_backward=0.0 if idle else self.clock.shared(last),
            previous_step_end=previous_step_end,
            bytes_sent=float(self.links.bytes_sent - self.bytes_reported),
            stop_asked=float(self.stop_asked),
            poison=float(poison or 0),
        )
        figures = share_figures(self.group, self.links, iteration, mine)
        self.bytes_reported = self.links.bytes_sent
        return figures, Span(self.job.node, SYNC, None, last, done)

    def metrics(
        self,
        iteration: int,
        figures: list[Figures],
        perplexity: float | None,
        cause: str | None,
        step_ends: list[float],
    ) -> IterationMetrics:
        """What the finished iteration took."""
        pipeline, model = self.job.schedule.pipeline, self.job.config.model
        tokens = len(self.job.plan.paths) * pipeline.samples_per_microbatch * model.context
        return iteration_metrics(iteration, figures, step_ends, tokens, self.job.time_scale, perplexity, cause)

    def write_timeline(self, iteration: int, record: IterationRecord, synced: Span) -> None:
        """Add this node's spans to the run's timeline."""
        scale = self.job.time_scale
        spans = [
            replace(span, start_s=self.clock.shared(span.start_s) / scale, end_s=self.clock.shared(span.end_s) / scale)
            for span in [*record.spans, synced]
        ]
        append_spans(self.job.folder, iteration, spans)

    def close(self) -> None:
        """Leave the others."""
        self.links.close()


def run_worker(job: Job) -> None:
    """Train one node to the end (in a process of its own)."""
    torch.set_num_threads(1)
    started = time.monotonic()
    worker = Worker(job)
    logger.info("node %d ready in %.1f s: stage %d", job.node, time.monotonic() - started, worker.stage_index)
    worker.train()
    worker.close()
    digest = weights_digest(worker.stage)
    logger.info("node %d done: %d bytes sent, weights %s", job.node, worker.links.bytes_sent, digest)
    worker.drops.check()


def weights_digest(stage: Stage) -> str:
    """Hash of a shard's weights; replicas of a stage must show the same one."""
    digest = hashlib.sha256()
    for parameter in stage.parameters():
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
