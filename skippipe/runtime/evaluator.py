"""Validation over live peers: each batch visits in order the stages that still have a node."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from skippipe.config import RunConfig
from skippipe.data.batches import validation_batches
from skippipe.data.prepared import Prepared
from skippipe.model.checkpoint import Checkpoint, load_stage
from skippipe.model.stage import Stage
from skippipe.report.metrics import BatchMetrics
from skippipe.runtime.endpoint import Endpoint
from skippipe.runtime.events import EvaluationDone
from skippipe.runtime.share import own_device, take_device, take_threads
from skippipe.schedule import Plan
from skippipe.transport.inbox import Inbox, PeerLostError
from skippipe.transport.links import Links
from skippipe.transport.message import HEADER, Header, MalformedMessageError, MessageKind

logger = logging.getLogger(__name__)

FAREWELL_SECONDS = 2.0
"""Most time that nodes are waited for, to hear that no batch comes any more."""


@dataclass(frozen=True)
class EvaluationJob:
    """Everything that a node's process is told."""

    endpoint: Endpoint
    plan: Plan
    config: RunConfig
    prepared: Prepared
    checkpoint: Checkpoint
    samples: int
    """Sequences in a batch."""

    @property
    def driver(self) -> int:
        """The node that sends the batches out and computes their losses."""
        return self.plan.stages[0][0]


class Mailbox(Inbox):
    """Hidden states by sender, their numbers rising; a lost peer is remembered and stops only who waits for it."""

    def __init__(self, peers: Iterable[int]) -> None:
        """`peers` are the nodes that may send."""
        super().__init__({}, lambda sender: 0.0)
        self.newest = dict.fromkeys(peers, -1)
        self.hidden: dict[int, tuple[int, Tensor]] = {}
        self.lost: set[int] = set()

    def put(self, header: Header, tensor: Tensor) -> None:
        """Deliver a message (network thread); MalformedMessageError for a stranger's or a repeated one."""
        with self.changed:
            newest = self.newest.get(header.sender)
            if header.kind is not MessageKind.ACTIVATION or newest is None or header.iteration <= newest:
                raise MalformedMessageError(f"no {header.kind.name} {header.iteration} is due from {header.sender}")
            self.newest[header.sender] = header.iteration
            self.hidden[header.sender] = header.iteration, tensor
            self.changed.notify_all()

    def lose(self, node: int, reason: str) -> None:
        """Note that a peer is gone (network thread)."""
        with self.changed:
            self.lost.add(node)
            self.changed.notify_all()

    def take_from(self, node: int) -> tuple[int, Tensor]:
        """Wait for a message of a node: its number and hidden state; PeerLostError if the node is gone."""
        with self.changed:
            self.changed.wait_for(lambda: node in self.hidden or node in self.lost or self.failure is not None)
            if node not in self.hidden:
                self.check_failure()
                raise PeerLostError(f"node {node} can't be reached")
            return self.hidden.pop(node)


class Driver:
    """Sends each batch over one living node of every stage and computes its loss."""

    def __init__(self, job: EvaluationJob, stage: Stage, mailbox: Mailbox, links: Links) -> None:
        self.job, self.stage, self.mailbox, self.links = job, stage, mailbox, links
        self.device = stage.cos.device

    def evaluate(self) -> None:
        """Validate on `iterations` batches, over the held-out text again and again, and report each."""
        job = self.job
        batches = validation_batches(job.prepared, job.samples, job.config.model.context, job.config.iterations)
        again = itertools.cycle(batches)
        for number, (tokens_BT, targets_BT) in enumerate(itertools.islice(again, job.config.iterations)):
            self.links.work.begin(f"batch {number}")
            hidden_BTD, visited = self.forward(number, tokens_BT)
            loss = float(self.stage.loss(hidden_BTD, targets_BT.to(self.device)))
            job.endpoint.report(BatchMetrics(number, loss, tokens_BT.numel(), tuple(visited)))
        self.say_farewell()
        job.endpoint.report(EvaluationDone())

    def say_farewell(self) -> None:
        """Let the others end: the number behind the last batch's says so."""
        for node in self.mailbox.newest:
            if node in self.mailbox.lost:
                # Nothing that was sent to it is waited for.
                self.links.loop.call_soon_threadsafe(self.links.forget, node)
            else:
                send(self.links, node, self.job.config.iterations, torch.zeros(1))
        # Waits until the network thread has all of it, too.
        self.links.part()
        self.links.drain(FAREWELL_SECONDS)

    def forward(self, number: int, tokens_BT: Tensor) -> tuple[Tensor, list[int]]:
        """Token ids (B, T) to hidden states (B, T, D), and the stages that were visited."""
        hidden_BTD, visited = self.stage(tokens_BT.to(self.device)), [0]
        for index in range(1, len(self.job.plan.stages)):
            result = self.ask_stage(index, number, hidden_BTD)
            if result is not None:
                hidden_BTD = result
                visited.append(index)
        return hidden_BTD, visited

    def ask_stage(self, index: int, number: int, hidden_BTD: Tensor) -> Tensor | None:
        """What a stage computes from hidden states, asking its replicas in turn; None if none is left."""
        replicas = self.job.plan.stages[index]
        for place in range(len(replicas)):
            node = replicas[(number + place) % len(replicas)]
            if node in self.mailbox.lost:
                continue
            with suppress(PeerLostError):
                send(self.links, node, number, hidden_BTD)
                with self.links.work.waiting():
                    answer, result_BTD = self.mailbox.take_from(node)
                assert answer == number, f"node {node} answered batch {answer} instead of {number}"
                return result_BTD.to(self.device)
        return None


def send(links: Links, node: int, number: int, hidden_BTD: Tensor) -> None:
    """Send hidden states (B, T, D) to a node."""
    links.send(node, Header(MessageKind.ACTIVATION, number, 0, links.node, 0.0), hidden_BTD)


def serve(driver: int, batches: int, stage: Stage, mailbox: Mailbox, links: Links) -> None:
    """Compute the stage for the driver until it has done its last batch; PeerLostError if it is gone before."""
    while True:
        links.work.wait("hidden states")
        number, hidden_BTD = mailbox.take_from(driver)
        if number == batches:
            return
        links.work.begin(f"stage {stage.stage} of batch {number}")
        send(links, driver, number, stage(hidden_BTD.to(stage.cos.device)))


@torch.no_grad()
def run_evaluator(job: EvaluationJob) -> None:
    """Drive or serve an evaluation (in a process of its own), until the batches are done."""
    take_threads(job.config.threads, job.endpoint, job.config.emulation.enabled)
    node, config, driver = job.endpoint.node, job.config, job.driver
    stage = Stage(config.model, job.plan.stage_of()[node], job.prepared.vocabulary, config.seed)
    load_stage(job.checkpoint, stage)
    device = own_device(config.device, job.endpoint)
    take_device(device, node)
    stage.to(device)
    # Those of its own stage have nothing to do, but to hear of the end.
    peers = [other for others in job.plan.stages for other in others if other != node] if node == driver else [driver]
    mailbox = Mailbox(peers)
    largest = HEADER.size + 4 * job.samples * config.model.context * config.model.d_model
    links = job.endpoint.open_links(mailbox, largest)
    logger.info("node %d ready: stage %d", node, stage.stage)
    # All begin at once; whoever is gone already is in mailbox.lost afterwards, the others are there.
    for some in (peers, *([peer] for peer in peers)):
        with suppress(PeerLostError):
            links.connect(some)
    # Another machine may run something else.
    mailbox.check_failure()
    if node == driver:
        Driver(job, stage, mailbox, links).evaluate()
    else:
        serve(driver, config.iterations, stage, mailbox, links)
    links.close()
