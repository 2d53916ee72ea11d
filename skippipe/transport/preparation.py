"""What nodes tell one another before they know with which iteration they begin, and what the faster ones send then."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping

from torch import Tensor

from skippipe.transport.clocks import Clock
from skippipe.transport.collective import Expected, Identity
from skippipe.transport.inbox import MOST_EARLY, Inbox
from skippipe.transport.links import Links
from skippipe.transport.message import COLLECTIVE, Header, MalformedMessageError, MessageKind

logger = logging.getLogger(__name__)


class Preparation(Inbox):
    """Takes collectives of its own, files and what is asked of this node; all else waits for the inbox that follows."""

    def __init__(self, clock: Clock, collectives: Mapping[int, Expected]) -> None:
        """`collectives` says what must come in each of them, by its sequence; they are those of iteration 0."""
        super().__init__({}, lambda sender: 0.0, clock=clock, collectives=collectives)
        self.parcels: deque[tuple[Header, Tensor]] = deque()

    def put(self, header: Header, tensor: Tensor) -> None:
        """Deliver a message (network thread); MalformedMessageError for one too many."""
        with self.changed:
            if header.kind in (MessageKind.ASK, MessageKind.FILE):
                self.parcels.append((header, tensor))
                self.changed.notify_all()
            elif header.kind in COLLECTIVE and header.microbatch in self.collectives:
                self.put_collective(header, tensor)
            elif len(self.early) < MOST_EARLY:
                self.early.append((header, tensor))
            else:
                raise MalformedMessageError(f"{MOST_EARLY} messages wait already")

    def take_parcel(self) -> tuple[Header, Tensor]:
        """Wait for a file or a question (torch thread); PeerLostError if the network's thread has given up a peer."""
        with self.changed:
            self.changed.wait_for(lambda: bool(self.parcels) or self.interrupted)
            self.check(bool(self.parcels))
            return self.parcels.popleft()

    def take_next(self, identity: Identity) -> tuple[Header, Tensor]:
        """Wait for a file, a question, or the next message of a collective, as take_parcel."""
        with self.changed:
            arrived = self.arrived[identity]
            self.changed.wait_for(lambda: bool(self.parcels or arrived) or self.interrupted)
            self.check(bool(self.parcels or arrived))
            return (self.parcels or arrived).popleft()

    def give_way(self, links: Links, inbox: Inbox) -> None:
        """Let messages go to the inbox that follows from now on, first of all those that wait for it (torch thread)."""

        async def change() -> None:
            links.inbox = inbox
            if self.failure is not None:
                inbox.fail(self.failure, self.error)
            for header, tensor in self.early:
                try:
                    inbox.put(header, tensor)
                except MalformedMessageError as error:
                    logger.warning("dropped a message that node %d sent early: %s", header.sender, error)

        asyncio.run_coroutine_threadsafe(change(), links.loop).result()
