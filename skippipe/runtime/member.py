"""A node as one of a run: what it builds, how it gets in, and how it goes on from view to view."""

from __future__ import annotations

import logging
import signal

from torch import Tensor

from skippipe.model.checkpoint import load_stage
from skippipe.model.feedback import Replica, load_feedback
from skippipe.model.gradient_codec import GradientCodec
from skippipe.runtime.emulation import Emulation, RunClock
from skippipe.runtime.endpoint import STOP_SIGNAL
from skippipe.runtime.events import NodeBack, Ready
from skippipe.runtime.executor import Executor, expected_senders
from skippipe.runtime.figures import WIDTHS, meet
from skippipe.runtime.gradients import Group, largest_message
from skippipe.runtime.holding import Holding, Restored
from skippipe.runtime.job import Job
from skippipe.runtime.microbatches import Microbatches
from skippipe.runtime.pace import Pace
from skippipe.runtime.plans import Plans
from skippipe.runtime.replanner import Replanner
from skippipe.runtime.reporter import Reporter
from skippipe.runtime.shard import Shard
from skippipe.runtime.soundness import Drops
from skippipe.runtime.state import Knowledge, know
from skippipe.runtime.survivors import NO_VIEW, Survivors
from skippipe.schedule.compression import compressed_links
from skippipe.survival.course import Course
from skippipe.survival.view import View
from skippipe.transport.all_reduce import PART_NUMBERS
from skippipe.transport.clocks import Clock
from skippipe.transport.inbox import Inbox, PeerLostError, ViewChangedError
from skippipe.transport.message import HEADER, Encoding

logger = logging.getLogger(__name__)

SLOWEST_STEP_FACTOR = 10.0
"""A node may work on one thing for this many expected steps before it is taken for hung."""
MOST_AGREEMENT_BYTES = 1 << 22
"""Of a message by which nodes agree on a view, which holds a plan."""


class Member:
    """One node of a run: what it consists of."""

    def __init__(self, job: Job) -> None:
        """Build the shard and open the links."""
        self.job = job
        config, plan, node = job.config, job.plan, job.node
        self.first = job.first_iteration
        self.joins = job.endpoint.joins
        """Whether this process is not the node's first one: the others are in the middle of the run."""
        number, reason = (NO_VIEW, "not in any view yet") if self.joins else (0, "the run begins")
        self.view = View(number, self.first, "start", reason, plan, self.first - 1)
        self.holding = Holding(job, plan.stage_of()[node])
        self.own_gradient: Tensor | None = None
        """The gradient before the sync, once that has begun: a sync that loses a replica begins again with it."""
        if job.checkpoint is not None and not self.joins:
            load_stage(job.checkpoint, self.shard.stage, self.shard.optimizer)
        self.drops = Drops(config.optimizer.dropped_in_a_row, self.first)
        self.stop_asked = False
        signal.signal(STOP_SIGNAL, self.ask_to_stop)
        samples = job.schedule.pipeline.samples_per_microbatch
        self.shard.codec = self.make_codec()
        self.group = self.make_group()
        clock = Clock()
        self.emulation = self.make_emulation()
        delay_s, queue_s = self.emulation.hop_from_s.__getitem__, self.emulation.queue_s
        expected = self.group.expected(WIDTHS)
        senders = {} if self.joins else expected_senders(plan, node)
        self.inbox = Inbox(senders, delay_s, queue_s, clock, self.first, expected, number)
        self.open_links(samples)
        self.work, self.clock = self.links.work, RunClock(clock, self.links.axis_offset)
        read, send = Microbatches(job).read, self.links.send
        self.executor = Executor(node, plan, self.shard.stage, read, self.inbox, send, self.emulation, clock, self.work)
        self.plans = Plans(job)
        self.survivors = self.make_survivors()
        self.pace = Pace(self.survivors.course, self.inbox)
        self.replanner = Replanner(job, self.plans, self.survivors.found_better)
        self.reporter = Reporter(job, self.clock, self.survivors.is_here)
        self.bytes_reported = 0
        self.step_end = 0.0
        self.done = 0
        """Iterations after which this node has made its step."""

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
        codec = GradientCodec(sync, len(self.shard.optimizer.flat))
        if self.job.checkpoint is not None and not self.joins:
            load_feedback(self.job.checkpoint, self.job.config, self.replica, codec.left_out)
        return codec

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

    @property
    def replica(self) -> Replica:
        """Which of its stage's replicas this node is."""
        return Replica(self.shard.index, self.job.node, self.view.plan.stages[self.shard.index])

    def open_links(self, samples: int) -> None:
        """Open the links to the others."""
        job, config = self.job, self.job.config
        compressed = compressed_links(config.compression, job.schedule)[job.node]
        encoding = Encoding[config.compression.encoding.upper()]
        encodings = {other: encoding for other in range(job.schedule.nodes) if compressed[other]}
        activation = HEADER.size + 4 * samples * config.model.context * config.model.d_model
        part = HEADER.size + 4 * PART_NUMBERS
        largest = max(activation, largest_message(self.group.expected(WIDTHS)), MOST_AGREEMENT_BYTES, part)
        patience = config.peers.connect_seconds + SLOWEST_STEP_FACTOR * job.plan.expected_step_s * job.time_scale
        self.links = job.endpoint.open_links(self.inbox, largest, encodings, work_seconds=patience)

    def meet(self) -> None:
        """Wait for all others, and learn the run's name."""
        job = self.job
        receivers = self.receivers()
        if not job.endpoint.with_first_node:
            # Its clock is the run's time.
            receivers.add(0)
        self.work.wait("the other nodes")
        # All of them now: nothing is connected in the middle of an iteration.
        self.links.connect(sorted(receivers))
        self.run = meet(self.group, self.links, self.first)
        self.survivors.start()
        self.links.see(self.view.members)
        self.reporter.begin(self.view)
        job.endpoint.report(Ready(job.node))

    def join(self) -> None:
        """Get into the run, with the state of a replica of the same stage; PeerLostError if nobody lets it in."""
        self.work.wait("a view to join")
        self.survivors.start()
        view = self.wait_for_view()
        self.links.joined = True
        self.first = view.first_iteration
        if self.first >= self.job.config.iterations:
            logger.info("the run ends before iteration %d, in which this node would join", self.first)
            self.pace.wait_for_the_end()
        if not self.job.endpoint.with_first_node and 0 in view.members:
            # Its clock is the run's time.
            self.links.connect([0])
        with self.inbox.changed:
            self.inbox.iteration = self.first
            self.take_up(self.first)
        known, restored = self.receive_state(self.first)
        self.run, self.drops.in_a_row, self.drops.proven = known.run, known.dropped_in_a_row, known.proven
        self.links.learn_axis(restored.donor, known.axis_s)
        self.pace.complete(self.first - 1, known.figures)
        self.hand_on(self.first)
        if self.shard.codec is not None:
            logger.info("what this node's compressed syncs had left out is lost with its former process")
        self.job.endpoint.report(
            NodeBack(self.job.node, self.first, self.shard.index, restored.source, restored.size, restored.seconds)
        )

    def wait_for_view(self) -> View:
        """The first view that names this joiner; PeerLostError says why there is none."""
        try:
            return self.pace.wait_for_view(self.job.config.peers.connect_seconds)
        except PeerLostError as error:
            why = self.survivors.not_reached
            raise PeerLostError(f"{error} ({why})" if why else str(error)) from None

    def receivers(self) -> set[int]:
        """Nodes that this one sends to in the view."""
        plan, node = self.view.plan, self.job.node
        others = (other for other in self.view.members if node in expected_senders(plan, other).values())
        return {*others, *self.group.peers()}

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
            arriving, shard = self.holding.take_up(self.view, self.know), self.shard
            self.executor.hold(shard.stage)
            shard.codec = shard.codec or self.make_codec()
            if shard.codec is not None:
                shard.codec.regroup()
            self.group = self.make_group()
            collectives = {**self.group.expected(WIDTHS), **arriving}
            redone = [(view.first_iteration, view.number) for view in views if view.way == "redo"]
            senders = expected_senders(self.view.plan, self.job.node)
            self.inbox.take_up(self.view.number, senders, collectives, redone[-1] if redone else None)
        self.executor.emulation = self.emulation = self.make_emulation()
        if self.view.committed >= self.executor.iteration:
            self.executor.finish()
        begins_again = iteration in [first for first, _ in redone]
        if not begins_again:
            self.executor.take_up(self.view.plan, self.view.number)
        self.tell_of(views, before)
        self.replanner.look(self.view, iteration)
        return begins_again

    def know(self) -> Knowledge:
        """What this node knows of the run beside its stage."""
        axis_s = self.links.axis_offset()
        return know(self.run, self.shard.optimizer, self.drops, axis_s, self.survivors.course.figures)

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
