"""A node as one of a run: what it builds, how it gets in, and how it goes on from view to view."""

from __future__ import annotations

import logging
import signal
from dataclasses import replace

from skippipe.model.checkpoint import load_stage
from skippipe.model.feedback import Replica, load_feedback
from skippipe.model.gradient_codec import GradientCodec
from skippipe.runtime.emulation import Emulation, RunClock
from skippipe.runtime.endpoint import STOP_SIGNAL
from skippipe.runtime.events import FirstRestored, Ready
from skippipe.runtime.executor import Executor, expected_senders
from skippipe.runtime.figures import meet, widths
from skippipe.runtime.gradients import Exchange, Group
from skippipe.runtime.holding import Holding, Restored
from skippipe.runtime.job import Job
from skippipe.runtime.microbatches import Microbatches
from skippipe.runtime.opening import open_links
from skippipe.runtime.pace import Pace
from skippipe.runtime.plans import Plans
from skippipe.runtime.replanner import Replanner
from skippipe.runtime.reporter import Reporter
from skippipe.runtime.resuming import Resumption
from skippipe.runtime.shard import Shard
from skippipe.runtime.soundness import Drops
from skippipe.runtime.state import Knowledge, know
from skippipe.runtime.survivors import NO_VIEW, Survivors
from skippipe.survival.course import Course
from skippipe.survival.view import View
from skippipe.transport.clocks import Clock
from skippipe.transport.inbox import Inbox, ViewChangedError

logger = logging.getLogger(__name__)


class Member:
    """One node of a run: what it consists of."""

    def __init__(self, job: Job) -> None:
        """Build the shard, open the links, and find out which checkpoint to go on from, if there is one."""
        self.job = job
        config, plan, node = job.config, job.plan, job.node
        self.joins = job.endpoint.joins
        """Whether this process is not the node's first one: the others are in the middle of the run."""
        self.begin_at(job.first_iteration)
        self.holding = Holding(job, plan.stage_of()[node])
        self.stop_asked = False
        signal.signal(STOP_SIGNAL, self.ask_to_stop)
        self.shard.codec = self.make_codec()
        self.group = self.make_group()
        self.microbatches = Microbatches(job)
        self.widths = widths(self.microbatches.width)
        """Of the rows that all nodes share."""
        clock = Clock()
        self.emulation = self.make_emulation()
        resumption = Resumption(job, self.group.tree, clock) if job.resume is not None and not self.joins else None
        self.inbox = resumption.inbox if resumption is not None else self.make_inbox(clock)
        self.links = open_links(job, self.group, self.widths, self.inbox)
        self.work, self.clock = self.links.work, RunClock(clock, self.links.axis_offset)
        if resumption is not None:
            self.resume(resumption, clock)
        self.load()
        self.drops = Drops(config.optimizer.dropped_in_a_row, self.first)
        job = self.job
        read, send = self.microbatches.read, self.links.send
        self.executor = Executor(node, plan, self.shard.stage, read, self.inbox, send, self.emulation, clock, self.work)
        self.plans = Plans(job)
        self.survivors = self.make_survivors()
        self.pace = Pace(self.survivors.course, self.inbox)
        self.replanner = Replanner(job, self.plans, self.survivors.found_better)
        self.reporter = Reporter(job, self.clock, self.survivors.is_here)
        self.bytes_reported = 0
        self.synced_with: GradientCodec | None = None
        """What the last sync was written with, of a group that may have shrunk since."""
        self.step_end = 0.0
        self.done = 0
        """Iterations after which this node has made its step."""

    def begin_at(self, iteration: int) -> None:
        """Begin with an iteration, in the first view."""
        self.first = iteration
        number, reason = (NO_VIEW, "not in any view yet") if self.joins else (0, "the run begins")
        self.view = View(number, iteration, "start", reason, self.job.plan, iteration - 1)

    def resume(self, resumption: Resumption, clock: Clock) -> None:
        """Agree with all others on a checkpoint, whose files lie on several machines, and begin where it ends."""
        self.connect()
        self.work.wait("a checkpoint's files")
        self.job = self.holding.job = replace(self.job, checkpoint=resumption.run(self.links))
        self.begin_at(self.job.first_iteration)
        self.microbatches = Microbatches(self.job)
        self.inbox = self.make_inbox(clock)
        resumption.inbox.give_way(self.links, self.inbox)

    def load(self) -> None:
        """Take up what the checkpoint has of this node, if the run goes on from one."""
        checkpoint = self.job.checkpoint
        if checkpoint is None or self.joins:
            return
        # No work that peers would lose patience with: a large file takes its time.
        self.work.wait("the checkpoint to be read")
        load_stage(checkpoint, self.shard.stage, self.shard.optimizer)
        if self.shard.codec is not None:
            load_feedback(checkpoint, self.job.config, self.replica, self.shard.codec.left_out)

    @property
    def shard(self) -> Shard:
        """The stage that this node holds."""
        return self.holding.shard

    def make_survivors(self) -> Survivors:
        """What keeps this node in step with the others about who goes on."""
        job, before = self.job, self.first - 1
        course = Course(None, before, has_state=False) if self.joins else Course(self.view, before, before)
        return Survivors(job.endpoint, course, self.links, self.plans)

    def make_codec(self) -> GradientCodec | None:
        """How this node writes gradients, if they are compressed."""
        sync = self.job.config.compression.sync
        replicas = self.view.plan.stages[self.shard.index]
        if sync == "fp32" or len(replicas) == 1:
            return None
        return GradientCodec(sync, len(self.shard.optimizer.flat))

    def make_group(self) -> Group:
        """What this node does together with others in the view."""
        shard = self.shard
        hidden = shard.full_model.shapes if shard.full_model else []
        parameters = len(shard.optimizer.flat)
        return Group(self.view.plan, self.job.node, parameters, hidden, shard.codec, self.view.number)

    def make_emulation(self) -> Emulation:
        """What this node's hops, tasks and syncs take in the view."""
        job, plan = self.job, self.view.plan
        messages, sync_s = 2 * len(plan.paths) * plan.path_length, plan.sync_s[self.shard.index]
        return Emulation.of(job.config.emulation, job.schedule.costs, job.node, sync_s, messages)

    def make_inbox(self, clock: Clock) -> Inbox:
        """Where what others send in the iterations arrives."""
        delay_s, queue_s = self.emulation.hop_from_s.__getitem__, self.emulation.queue_s
        senders = {} if self.joins else expected_senders(self.job.plan, self.job.node)
        expected = self.group.expected(self.widths)
        return Inbox(senders, delay_s, queue_s, clock, self.first, expected, self.view.number)

    @property
    def replica(self) -> Replica:
        """Which of its stage's replicas this node is."""
        return Replica(self.shard.index, self.job.node, self.view.plan.stages[self.shard.index])

    def meet(self) -> None:
        """Wait for all others, and learn the run's name."""
        self.connect()
        self.run = meet(self.group, self.links, self.first)
        self.survivors.start()
        self.links.see(self.view.members)
        self.reporter.begin(self.view)
        self.job.endpoint.report(Ready(self.job.node))

    def connect(self) -> None:
        """Open the links to all that this node sends to: nothing is connected in the middle of an iteration."""
        receivers = self.receivers()
        if not self.job.endpoint.with_first_node:
            # Its clock is the run's time.
            receivers.add(0)
        self.work.wait("the other nodes")
        self.links.connect(sorted(receivers))

    def receivers(self) -> set[int]:
        """Nodes that this one sends to in the view."""
        # Where an activation comes from its gradient goes to, and the other way round.
        return {*expected_senders(self.view.plan, self.job.node).values(), *self.group.peers()}

    def ask_to_stop(self, *_: object) -> None:
        """Remember that this process was told to save and leave."""
        self.stop_asked = True

    def begin(self, iteration: int) -> None:
        """Begin an iteration, in the view that is due in it, with the state of the stage that this node has in it."""
        self.work.wait(f"the beginning of iteration {iteration}")
        while True:
            try:
                self.pace.begin(iteration)
            except ViewChangedError:
                self.take_up(iteration)
            else:
                break
        self.take_up(iteration)
        self.holding.hand_over(self.links, self.view, iteration, self.wire_now)
        if self.holding.awaiting:
            try:
                self.receive_state(iteration)
                self.hand_on(iteration)
            except ViewChangedError:
                # Somebody is lost: all go back to what they held.
                self.take_up(iteration)

    def receive_state(self, iteration: int) -> tuple[Knowledge, Restored]:
        """Get the state of the stage that this node has in the view from now on; PeerLostError, ViewChangedError."""
        self.work.begin(f"the state of stage {self.shard.index}")
        return self.holding.receive(self.links, self.view, iteration, self.inbox.clock)

    def hand_on(self, iteration: int) -> None:
        """Give other replicas the stage that this node has restored, if it has."""
        self.holding.hand_on(self.links, self.view, iteration, self.know, self.wire_now)

    def take_up(self, iteration: int) -> bool:
        """Go on in the view that is due in an iteration, if there is one; whether that must begin again with it."""
        before = self.view
        with self.inbox.changed:
            views = self.survivors.course.take_up(iteration)
            if not views:
                return False
            self.view = views[-1]
            arriving = self.holding.take_up(self.view, self.know, self.widths[Exchange.FIGURES])
            shard = self.shard
            self.executor.hold(shard.stage)
            shard.codec = shard.codec or self.make_codec()
            if shard.codec is not None:
                shard.codec.regroup()
            self.group = self.make_group()
            collectives = {**self.group.expected(self.widths), **arriving}
            redone = [(view.first_iteration, view.number) for view in views if view.way == "redo"]
            senders = expected_senders(self.view.plan, self.job.node)
            self.inbox.take_up(self.view.number, senders, collectives, redone[-1] if redone else None)
        if taken := [view.first_iteration for view in views if view.restored.get(self.job.node) == ()]:
            self.restore_first(taken[-1])
        self.executor.emulation = self.emulation = self.make_emulation()
        if self.view.committed >= self.executor.iteration:
            self.executor.finish()
        begins_again = iteration in [first for first, _ in redone]
        if not begins_again:
            self.executor.take_up(self.view.plan, self.view.number)
        self.tell_of(views, before)
        self.replanner.look(self.view, iteration)
        return begins_again

    def restore_first(self, iteration: int) -> None:
        """Fill the first stage, which this node holds from now on, from a checkpoint."""
        self.work.begin("the checkpoint of stage 0 to be read")
        source = self.holding.restore_first()
        logger.warning("stage 0 is restored %s", source)
        self.job.endpoint.report(FirstRestored(self.job.node, iteration, source))

    def know(self) -> Knowledge:
        """What this node knows of the run beside its stage."""
        axis_s, places, figures = self.links.axis_offset(), self.microbatches.now(), self.survivors.course.figures
        return know(self.run, self.shard.optimizer, self.drops, axis_s, places, figures)

    @property
    def wire_now(self) -> float:
        """The time on the links' clock."""
        return self.inbox.clock.wire(self.clock.now())

    def tell_of(self, views: list[View], before: View) -> None:
        """Tell what became of the nodes."""
        following = self.plans.of(self.view, self.view.first_iteration + 1)
        self.plans.note(self.view)
        self.links.see(self.view.members)
        self.reporter.views(views, before, following.expected_step_s)

    def close(self) -> None:
        """Leave the others."""
        self.replanner.stop()
        self.links.close()
