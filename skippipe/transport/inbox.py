"""Where delivered messages wait for the torch thread; bounded by what schedule and collectives let peers send."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping

import torch

from skippipe.transport.clocks import Clock
from skippipe.transport.collective import Expected, Identity
from skippipe.transport.message import COLLECTIVE, Header, MalformedMessageError, MessageKind

logger = logging.getLogger(__name__)

Key = tuple[MessageKind, int, int]

ITERATIONS_AHEAD = 1
"""A peer may be one iteration ahead of us: its optimizer step needed our gradients of the iteration before."""


MOST_EARLY = 4096
"""Messages of views that this node does not know yet; more are refused."""


class PeerLostError(Exception):
    """A peer can't be reached any more; the message names it."""


class LinksBrokenError(RuntimeError):
    """This node's own links do not work any more, by a mistake of the program."""


class ViewChangedError(Exception):
    """Another view has been decided: who waits must take it up first."""


class Inbox:
    """Messages by (kind, iteration, microbatch), each accepted once and only from the peers that the views name."""

    def __init__(
        self,
        senders: dict[tuple[MessageKind, int], int],
        delay_s: Callable[[int], float],
        queue_s: float = 0.0,
        clock: Clock | None = None,
        iteration: int = 0,
        collectives: Mapping[int, Expected] | None = None,
        view: int = 0,
    ) -> None:
        """`senders` names who sends what ((kind, microbatch) to node); `delay_s` is the emulated hop from a node.

        A message may say that it leaves its node as much as `queue_s` from now. `iteration` is the first one: peers may
        send its messages before this node begins it. `collectives` says what must come in each of an iteration, by its
        sequence. In view -1, which is before all others, everything waits until a view is taken up.
        """
        self.senders = {key: {sender} for key, sender in senders.items()}
        self.view = view
        """Number of the view whose collectives are taken."""
        self.oldest = view
        """Number of the oldest view whose activations and gradients are taken."""
        self.early: list[tuple[Header, torch.Tensor]] = []
        """What came of later views."""
        self.changing = False
        """Whether a later view has been decided, which this node has not taken up yet."""
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
        """Why no more messages will come."""
        self.error: type[Exception] = PeerLostError
        """Who waits for one raises this."""
        self.changed = threading.Condition()

    def put(self, header: Header, tensor: torch.Tensor) -> None:
        """Deliver a message (network thread); MalformedMessageError if the schedule knows of none such.

        The header's time must be one of our own wire clock.
        """
        # All of it in one view: the torch thread may be taking up another.
        with self.changed:
            if header.kind in COLLECTIVE:
                self.put_collective(header, tensor)
            else:
                self.put_hop(header, tensor)

    def put_hop(self, header: Header, tensor: torch.Tensor) -> None:
        """Deliver an activation or a gradient (network thread, with the lock)."""
        if header.view < self.oldest or self.keep_early(header, tensor):
            return
        if header.sender not in self.senders.get((header.kind, header.microbatch), ()):
            if header.view >= self.view:
                name = f"{header.kind.name} {header.microbatch}"
                raise MalformedMessageError(f"node {header.sender} has no {name} to send")
            return
        # The hop counts from the send, so the time that the real transfer took lies inside it.
        delay, now = self.delay_s(header.sender), self.clock.now()
        left = self.clock.from_wire(header.sent_at) + delay - now
        ready = now + min(self.queue_s + delay, max(0.0, left))
        again = header.key in self.messages or header.key in self.taken
        if max(header.view, self.view) and (again or header.iteration < self.iteration):
            # After a loss heirs do again what was done, and neighbours send again what may have come.
            return
        self.check_iteration(header)
        if again:
            raise MalformedMessageError(f"{header.kind.name} {header.microbatch} was delivered already")
        self.messages[header.key] = (ready, tensor)
        self.changed.notify_all()

    def keep_early(self, header: Header, tensor: torch.Tensor) -> bool:
        """Keep a message of a later view until this node takes it up (with the lock); False if it is of none."""
        if header.view <= self.view:
            return False
        if len(self.early) >= MOST_EARLY:
            raise MalformedMessageError(f"{MOST_EARLY} messages of later views wait already")
        self.early.append((header, tensor))
        return True

    def put_collective(self, header: Header, tensor: torch.Tensor) -> None:
        """Deliver what a collective expects, each once (network thread, with the lock); older views' is dropped."""
        name = f"{header.kind.name} {header.microbatch}.{header.part}"
        if header.view < self.view or self.keep_early(header, tensor):
            return
        shape = self.collectives.get(header.microbatch, {}).get((header.kind, header.sender, header.part))
        if shape is None:
            raise MalformedMessageError(f"node {header.sender} has no {name} to send")
        if tuple(tensor.shape) != shape:
            raise MalformedMessageError(f"{name} has shape {list(tensor.shape)}, expected {list(shape)}")
        self.check_iteration(header)
        if (timeless := header._replace(sent_at=0.0)) in self.seen:
            raise MalformedMessageError(f"{name} was delivered already")
        self.seen.add(timeless)
        self.arrived[Identity(header.iteration, header.microbatch, header.view)].append((header, tensor))
        self.changed.notify_all()

    def check_iteration(self, header: Header) -> None:
        """MalformedMessageError for an iteration that no peer can be in."""
        if not self.iteration <= header.iteration <= self.iteration + ITERATIONS_AHEAD:
            raise MalformedMessageError(f"iteration {header.iteration} is not {self.iteration} or the next")

    def take_arrived(self, identity: Identity) -> tuple[Header, torch.Tensor]:
        """Wait for the next message of a collective (in the torch thread), of each sender in its order.

        Raises PeerLostError if the network's thread has given up a peer, ViewChangedError if another view is there.
        """
        with self.changed:
            arrived = self.arrived[identity]
            self.changed.wait_for(lambda: bool(arrived) or self.interrupted)
            self.check(bool(arrived))
            return arrived.popleft()

    def has(self, key: Key) -> bool:
        """Whether a message can be taken at once."""
        with self.changed:
            return key in self.messages

    def take(self, key: Key) -> tuple[float, torch.Tensor]:
        """Wait for a message (in the torch thread): when its hop is over (monotonic seconds) and its tensor.

        Raises PeerLostError if the network's thread has given up a peer, ViewChangedError if another view is there.
        """
        with self.changed:
            self.changed.wait_for(lambda: key in self.messages or self.interrupted)
            self.check(key in self.messages)
            self.taken.add(key)
            return self.messages.pop(key)

    @property
    def interrupted(self) -> bool:
        """Whether who waits must do something else."""
        return self.changing or self.failure is not None

    def check(self, came: bool = True) -> None:
        """ViewChangedError if there is another view; PeerLostError if what was waited for never comes."""
        if self.changing:
            raise ViewChangedError
        if not came:
            self.check_failure()

    def check_failure(self) -> None:
        """PeerLostError, or what else it was, if no more messages will come."""
        if self.failure is not None:
            raise self.error(self.failure)

    def change(self) -> None:
        """Another view is decided (network thread): interrupt the torch thread."""
        with self.changed:
            self.changing = True
            self.changed.notify_all()

    def leave_views(self) -> None:
        """The others go on without this node, which may join again (network thread): what they had sent is void."""
        with self.changed:
            self.oldest = self.view + 1
            self.senders, self.messages, self.taken = {}, {}, set()
            self.change()

    def take_up(
        self,
        view: int,
        senders: dict[tuple[MessageKind, int], int],
        collectives: Mapping[int, Expected],
        redone: tuple[int, int] | None = None,
    ) -> None:
        """Go on in a view (torch thread). Senders of the views before stay allowed: what they send is the same.

        Unless an iteration is `redone` from a view on: (iteration, view). What came of older ones for it is dropped.
        """
        with self.changed:
            self.view, self.changing, self.collectives = view, False, collectives
            if redone is not None:
                again, self.oldest = redone
                self.senders = {}
                self.messages = {key: message for key, message in self.messages.items() if key[1] < again}
                self.taken = {key for key in self.taken if key[1] < again}
            for key, sender in senders.items():
                self.senders.setdefault(key, set()).add(sender)
            self.arrived.clear()
            self.seen.clear()
            early, self.early = self.early, []
            for header, tensor in early:
                try:
                    self.put(header, tensor)
                except MalformedMessageError as error:
                    logger.warning("dropped a message of node %d in view %d: %s", header.sender, header.view, error)

    def next_iteration(self, iteration: int) -> None:
        """Begin an iteration; what was taken before it may be forgotten."""
        with self.changed:
            self.iteration = iteration
            self.taken = {key for key in self.taken if key[1] >= iteration}
            if self.view:
                # What heirs were sent again for an iteration that others had the figures of.
                self.messages = {key: message for key, message in self.messages.items() if key[1] >= iteration}
            self.seen = {header for header in self.seen if header.iteration >= iteration}
            for identity in [identity for identity in self.arrived if identity.iteration < iteration]:
                assert not self.arrived.pop(identity), "a collective ended with messages left"

    def lose(self, node: int, reason: str) -> None:
        """A peer is lost (network thread): in training nobody can go on without it."""
        self.fail(reason)

    def fail(self, reason: str, error: type[Exception] = PeerLostError) -> None:
        """Wake the torch thread, which raises this error: no more messages will come."""
        with self.changed:
            if self.failure is None:
                self.failure, self.error = reason, error
            self.changed.notify_all()
