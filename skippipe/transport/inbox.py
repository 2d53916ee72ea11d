"""Where delivered messages wait for the torch thread; bounded by what schedule and collectives let peers send."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping

import torch

from skippipe.transport.clocks import Clock
from skippipe.transport.collective import Expected, Identity
from skippipe.transport.message import COLLECTIVE, Header, MalformedMessageError, MessageKind

Key = tuple[MessageKind, int, int]

ITERATIONS_AHEAD = 1
"""A peer may be one iteration ahead of us: its optimizer step needed our gradients of the iteration before."""


class PeerLostError(Exception):
    """A peer can't be reached any more; the message names it."""


class Inbox:
    """Messages by (kind, iteration, microbatch), each accepted once and only from the peer that the schedule names."""

    def __init__(
        self,
        senders: dict[tuple[MessageKind, int], int],
        delay_s: Callable[[int], float],
        queue_s: float = 0.0,
        clock: Clock | None = None,
        iteration: int = 0,
        collectives: Mapping[int, Expected] | None = None,
    ) -> None:
        """`senders` names who sends what ((kind, microbatch) to node); `delay_s` is the emulated hop from a node.

        A message may say that it leaves its node as much as `queue_s` from now. `iteration` is the first one: peers may
        send its messages before this node begins it. `collectives` says what must come in each of an iteration, by its
        sequence.
        """
        self.senders = senders
        self.delay_s = delay_s
        self.queue_s = queue_s
        self.clock = clock or Clock()
        self.iteration = iteration
        self.messages: dict[Key, tuple[float, torch.Tensor]] = {}
        self.taken: set[Key] = set()
        self.collectives = collectives or {}
        self.arrived: defaultdict[Identity, deque[tuple[Header, torch.Tensor]]] = defaultdict(deque)
        """Messages of collectives that wait to be taken."""
        self.seen: set[Header] = set()
        """Those that have come, without their times."""
        self.failure: str | None = None
        self.changed = threading.Condition()

    def put(self, header: Header, tensor: torch.Tensor) -> None:
        """Deliver a message (network thread); MalformedMessageError if the schedule knows of none such.

        The header's time must be one of our own wire clock.
        """
        if header.kind in COLLECTIVE:
            self.put_collective(header, tensor)
            return
        expected = self.senders.get((header.kind, header.microbatch))
        if expected != header.sender:
            raise MalformedMessageError(f"node {header.sender} has no {header.kind.name} {header.microbatch} to send")
        # The hop counts from the send, so the time that the real transfer took lies inside it.
        delay, now = self.delay_s(header.sender), self.clock.now()
        left = self.clock.from_wire(header.sent_at) + delay - now
        ready = now + min(self.queue_s + delay, max(0.0, left))
        with self.changed:
            self.check_iteration(header)
            if header.key in self.messages or header.key in self.taken:
                raise MalformedMessageError(f"{header.kind.name} {header.microbatch} was delivered already")
            self.messages[header.key] = (ready, tensor)
            self.changed.notify_all()

    def put_collective(self, header: Header, tensor: torch.Tensor) -> None:
        """Deliver what a collective expects, each once (network thread)."""
        name = f"{header.kind.name} {header.microbatch}.{header.part}"
        shape = self.collectives.get(header.microbatch, {}).get((header.kind, header.sender, header.part))
        if shape is None:
            raise MalformedMessageError(f"node {header.sender} has no {name} to send")
        if tuple(tensor.shape) != shape:
            raise MalformedMessageError(f"{name} has shape {list(tensor.shape)}, expected {list(shape)}")
        with self.changed:
            self.check_iteration(header)
            if (timeless := header._replace(sent_at=0.0)) in self.seen:
                raise MalformedMessageError(f"{name} was delivered already")
            self.seen.add(timeless)
            self.arrived[Identity(header.iteration, header.microbatch)].append((header, tensor))
            self.changed.notify_all()

    def check_iteration(self, header: Header) -> None:
        """MalformedMessageError for an iteration that no peer can be in."""
        if not self.iteration <= header.iteration <= self.iteration + ITERATIONS_AHEAD:
            raise MalformedMessageError(f"iteration {header.iteration} is not {self.iteration} or the next")

    def take_arrived(self, identity: Identity) -> tuple[Header, torch.Tensor]:
        """Wait for the next message of a collective (in the torch thread), of each sender in its order.

        Raises PeerLostError if the network's thread has given up a peer.
        """
        with self.changed:
            arrived = self.arrived[identity]
            self.changed.wait_for(lambda: bool(arrived) or self.failure is not None)
            if not arrived:
                raise PeerLostError(self.failure)
            return arrived.popleft()

    def take(self, key: Key) -> tuple[float, torch.Tensor]:
        """Wait for a message (in the torch thread): when its hop is over (monotonic seconds) and its tensor.

        Raises PeerLostError if the network's thread has given up a peer.
        """
        with self.changed:
            self.changed.wait_for(lambda: key in self.messages or self.failure is not None)
            if key not in self.messages:
                raise PeerLostError(self.failure)
            self.taken.add(key)
            return self.messages.pop(key)

    def next_iteration(self, iteration: int) -> None:
        """Begin an iteration; what was taken before it may be forgotten."""
        with self.changed:
            self.iteration = iteration
            self.taken = {key for key in self.taken if key[1] >= iteration}
            self.seen = {header for header in self.seen if header.iteration >= iteration}
            for identity in [identity for identity in self.arrived if identity.iteration < iteration]:
                assert not self.arrived.pop(identity), "a collective ended with messages left"

    def lose(self, node: int, reason: str) -> None:
        """A peer is lost (network thread): in training nobody can go on without it."""
        self.fail(reason)

    def fail(self, reason: str) -> None:
        """Wake the torch thread: no more messages will come."""
        with self.changed:
            self.failure = self.failure or reason
            self.changed.notify_all()
