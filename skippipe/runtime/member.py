"""A node as one of a run: what it builds, how it gets in, and how it goes on from view to view."""

from __future__ import annotations

import logging
import signal

from torch import Tensor

from skippipe.model.checkpoint import load_stage
from skippipe.model.feedback import Replica, load_feedback
from skippipe.model.gradient_codec import GradientCodec
from skippipe.model.optimizer import StageOptimizer
from skippipe.model.stage import Stage
from skippipe.runtime.emulation import Emulation, RunClock
from skippipe.runtime.endpoint import STOP_SIGNAL
from skippipe.runtime.events import NodeBack, Ready
from skippipe.runtime.executor import Executor, expected_senders
from skippipe.runtime.figures import WIDTHS, meet
from skippipe.runtime.full_model import FullModel
from skippipe.runtime.gradients import Exchange, Group, largest_message
from skippipe.runtime.job import Job
from skippipe.runtime.microbatches import Microbatches
from skippipe.runtime.plans import Plans
from skippipe.runtime.reporter import Reporter
from skippipe.runtime.soundness import Drops
from skippipe.runtime.state import Knowledge, awaited, earlier_members, handovers, know, restore
from skippipe.runtime.survivors import NO_VIEW, Survivors
from skippipe.schedule.compression import compressed_links
from skippipe.survival.agreement import FIRST_BIRTH
from skippipe.survival.course import Course
from skippipe.survival.view import View
from skippipe.transport.all_reduce import PART_NUMBERS
from skippipe.transport.clocks import Clock
from skippipe.transport.collective import Expected, Identity
from skippipe.transport.inbox import Inbox, ViewChangedError
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
        self.joins = job.endpoint.birth > FIRST_BIRTH
        """Whether this process is not the node's first one: the others are in the middle of the run."""
        number, reason = (NO_VIEW, "not in any view yet") if self.joins else (0, "the run begins")
        self.view = View(number, self.first, "start", reason, plan, self.first - 1)
        self.stage_index = plan.stage_of()[node]
        vocabulary, computing = job.prepared.vocabulary, (config.precision, config.recompute)
        self.stage = Stage(config.model, self.stage_index, vocabulary, config.seed, *computing).to(job.device)
        self.optimizer = StageOptimizer(self.stage, config.optimizer, config.iterations)
        self.own_gradient: Tensor | None = None
        """The gradient before the sync, once that has begun: a sync that loses a replica begins again with it."""
        if job.checkpoint is not None and not self.joins:
            load_stage(job.checkpoint, self.stage, self.optimizer)
        self.drops = Drops(config.optimizer.dropped_in_a_row, self.first)
        self.stop_asked = False
        signal.signal(STOP_SIGNAL, self.ask_to_stop)
        samples = job.schedule.pipeline.samples_per_microbatch
        self.full_model = FullModel(self.stage, job.prepared, samples) if config.evaluate_every else None
        self.codec = self.make_codec()
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
        self.executor = Executor(node, plan, self.stage, read, self.inbox, send, self.emulation, clock, self.work)
        self.plans = Plans(job)
        self.survivors = self.make_survivors()
        self.reporter = Reporter(job, self.clock)
        self.bytes_reported = 0
        self.step_end = 0.0

    def make_survivors(self) -> Survivors:
        """What keeps this node in step with the others about who goes on."""
        job, before = self.job, self.first - 1
        course = Course(None, before, has_state=False) if self.joins else Course(self.view, before, before)
        birth, patience_s = job.endpoint.birth, job.config.peers.silence_seconds
        plans, nodes = self.plans, job.schedule.nodes
        return Survivors(
            job.node, birth, nodes, job.folder, course, self.links, plans.succeed, plans.settle, patience_s
        )

    def make_codec(self) -> GradientCodec | None:
        """How this node writes gradients, if they are compressed."""
        sync = self.job.config.compression.sync
        replicas = self.view.plan.stages[self.stage_index]
        if sync == "fp32" or len(replicas) == 1:
            return None
        codec = GradientCodec(sync, len(self.optimizer.flat))
        if self.job.checkpoint is not None and not self.joins:
            load_feedback(self.job.checkpoint, self.job.config, self.replica, codec.left_out)
        return codec

    def make_group(self) -> Group:
        """What this node does together with others in the view."""
        hidden = self.full_model.shapes if self.full_model else []
        parameters = len(self.optimizer.flat)
        return Group(self.view.plan, self.job.node, parameters, hidden, self.codec, self.view.number)

    def make_emulation(self) -> Emulation:
        """What this node's hops, tasks and syncs take in the view."""
        job, plan = self.job, self.view.plan
        messages, sync_s = 2 * len(plan.paths) * plan.path_length, plan.sync_s[self.stage_index]
        return Emulation.of(job.config.emulation, job.schedule.costs, job.node, sync_s, messages)

    @property
    def replica(self) -> Replica:
        """Which of its stage's replicas this node is."""
        return Replica(self.stage_index, self.job.node, self.view.plan.stages[self.stage_index])

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
        self.reporter.begin(self.view)
        job.endpoint.report(Ready(job.node))

    def join(self) -> None:
        """Get into the run, with the state of a replica of the same stage; PeerLostError if nobody lets it in."""
        self.work.wait("a view to join")
        self.survivors.start()
        view = self.survivors.wait_for_view(self.job.config.peers.connect_seconds)
        self.first = view.first_iteration
        if self.first >= self.job.config.iterations:
            logger.info("the run ends before iteration %d, in which this node would join", self.first)
            self.survivors.wait_for_the_end()
        if not self.job.endpoint.with_first_node and 0 in view.members:
            # Its clock is the run's time.
            self.links.connect([0])
        handover = awaited(view, self.job.node, self.optimizer)
        with self.inbox.changed:
            self.inbox.iteration = self.first
            self.take_up(self.first, {Exchange.STATE: dict(handover.expected)})
        self.work.wait("the state of a replica")
        sent = self.links.run(handover, Identity(self.first, Exchange.STATE, view.number))
        seconds = max(0.0, self.clock.now() - self.inbox.clock.from_wire(sent))
        known = Knowledge.from_tensor(handover.figures, earlier_members(view))
        restore(self.optimizer, handover.numbers, known.step)
        self.run, self.drops.in_a_row, self.drops.proven = known.run, known.dropped_in_a_row, known.proven
        self.survivors.complete(self.first - 1, known.figures)
        if self.codec is not None:
            logger.info("what this node's compressed syncs had left out is lost with its former process")
        size, donor = handover.numbers.nbytes + handover.figures.nbytes, handover.members[0]
        self.job.endpoint.report(NodeBack(self.job.node, self.first, self.stage_index, donor, size, seconds))

    def receivers(self) -> set[int]:
        """Nodes that this one sends to in the view."""
        plan, node = self.view.plan, self.job.node
        others = (other for other in self.view.members if node in expected_senders(plan, other).values())
        return {*others, *self.group.peers()}

    def ask_to_stop(self, *_: object) -> None:
        """Remember that this process was told to save and leave."""
        self.stop_asked = True

    def begin(self, iteration: int) -> None:
        """Begin an iteration, in the view that is due in it; a state that others need for it is on its way then."""
        before = self.view
        while True:
            try:
                self.survivors.begin(iteration)
            except ViewChangedError:
                self.take_up(iteration)
            else:
                break
        self.take_up(iteration)
        if self.view is not before and self.view.joined:
            knowledge = know(self.run, self.optimizer, self.drops, self.survivors.course.figures)
            identity = Identity(iteration, Exchange.STATE, self.view.number)
            for handover in handovers(self.view, self.job.node, self.optimizer, knowledge):
                self.links.run(handover, identity, self.inbox.clock.wire(self.clock.now()))

    def take_up(self, iteration: int, others: dict[int, Expected] | None = None) -> None:
        """Go on in the view that is due in an iteration, if there is one; in it `others` must come too."""
        before = self.view
        with self.inbox.changed:
            views = self.survivors.course.take_up(iteration)
            if not views:
                return
            self.view = views[-1]
            if self.codec is not None:
                self.codec.regroup()
            self.group = self.make_group()
            senders = expected_senders(self.view.plan, self.job.node)
            self.inbox.take_up(self.view.number, senders, {**self.group.expected(WIDTHS), **(others or {})})
        if self.view.committed >= self.executor.iteration:
            self.executor.finish()
        self.executor.emulation = self.emulation = self.make_emulation()
        self.executor.take_up(self.view.plan, self.view.number)
        following = self.plans.of(self.view, self.view.first_iteration + 1)
        for view in views:
            self.reporter.note(view)
        self.reporter.view(self.view, before, following.expected_step_s)

    def close(self) -> None:
        """Leave the others."""
        self.links.close()
