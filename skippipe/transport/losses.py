"""What a node does when it hears of a lost one: in training that goes on it is a listener's, else the end for all."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Protocol

import torch

from skippipe.transport.message import Header, MalformedMessageError, MessageKind, pack
from skippipe.transport.sender import Sender

logger = logging.getLogger(__name__)

NOTICE_BYTES = 4096
FAILED, DIED = "failed", "died"
"""Words before a node's number in a launcher's notice: all must end because it failed, or go on without it.

The second is followed by which of the node's processes has ended: a later one has a larger number, its birth.
"""
FAREWELL_SECONDS = 5.0
"""How long peers that are still starting are waited for, to tell them that a node is lost."""
MOST_UNHEARD = 256
"""Messages for a listener that is not there yet; peers may be a little ahead."""


class Listener(Protocol):
    """Keeps training going when nodes are lost; every method is called in the network's thread."""

    def suspect(self, node: int, reason: str, hangs: bool = False) -> None:
        """A peer can't be reached, or says of itself that it hangs."""

    def died(self, node: int, birth: int) -> None:
        """A node's process, the one with this birth, has certainly ended."""

    def receive(self, sender: int, data: bytes) -> None:
        """A message by which nodes agree on who goes on."""


class Losses:
    """Hears of losses: from this node's launcher, from its links, and from other nodes. In the network's thread."""

    def __init__(
        self,
        node: int,
        nodes: int,
        notices: int | None,
        senders: dict[int, Sender],
        sender: Callable[[int], Sender],
        lose: Callable[[int, str], None],
        joins: bool = False,
    ) -> None:
        """From the file descriptor `notices` come the launcher's lines; `lose` ends what can't go on without a node.

        `senders` are those of the links that are open, `sender` opens one. A node that `joins` will have a listener.
        """
        self.node = node
        self.nodes = nodes
        self.notices = notices
        self.senders = senders
        self.sender = sender
        self.lose = lose
        self.joins = joins
        self.listener: Listener | None = None
        self.unheard_deaths: list[tuple[int, int]] = []
        self.told = False
        self.unheard: list[tuple[int, bytes]] = []

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to read the launcher's notices."""
        if self.notices is not None:
            loop.add_reader(self.notices, self.on_notices, loop, self.notices)

    def listen(self, listener: Listener) -> None:
        """From now on somebody knows how to go on without a node."""
        self.listener = listener
        deaths, self.unheard_deaths = self.unheard_deaths, []
        for node, birth in deaths:
            listener.died(node, birth)
        unheard, self.unheard = self.unheard, []
        for sender, data in unheard:
            listener.receive(sender, data)

    def stop_listening(self) -> None:
        """Training is over: who is lost now is not missed any more."""
        self.listener = None

    def on_notices(self, loop: asyncio.AbstractEventLoop, notices: int) -> None:
        """Take what the launcher knows of failures."""
        data = os.read(notices, NOTICE_BYTES)
        if not data:
            loop.remove_reader(notices)
        for line in data.decode().splitlines():
            word, *numbers = line.split()
            node = int(numbers[0])
            if word == FAILED:
                loop.remove_reader(notices)
                self.farewell = asyncio.create_task(self.say_farewell(node, notices))
                return
            if self.listener is not None:
                self.listener.died(node, int(numbers[1]))
            elif self.joins:
                self.unheard_deaths.append((node, int(numbers[1])))
            else:
                self.give_up(node, f"node {node} has ended")

    async def say_farewell(self, lost: int, notices: int) -> None:
        """Tell all nodes that can be reached; then close the notices, which the launcher waits for."""
        # While starting up, few links are open yet: whoever waits for us must hear it from us.
        senders = [self.sender(node) for node in range(self.nodes) if node not in (self.node, lost)]
        self.tell(lost)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + FAREWELL_SECONDS
        while loop.time() < deadline and not all(one.connected.is_set() and not one.waiting for one in senders):
            await asyncio.sleep(0.02)
        os.close(notices)

    def tell(self, lost: int) -> bool:
        """Tell all peers once that all must end, so that every machine names the same node; whether this is news."""
        news, self.told = not self.told, True
        if news:
            packed, payload = pack(Header(MessageKind.LOST, 0, lost, self.node, 0.0), torch.zeros(1))
            for sender in self.senders.values():
                sender.send(packed, payload)
        return news

    def give_up(self, node: int, reason: str, hangs: bool = False) -> None:
        """A peer is lost, or says of itself that it hangs."""
        if self.listener is not None:
            logger.warning(reason)
            self.listener.suspect(node, reason, hangs)
        else:
            logger.error(reason)
            self.lose(node, reason)

    def receive(self, header: Header, tensor: torch.Tensor) -> bool:
        """Take a message that is about losses; whether it was one."""
        if header.kind is MessageKind.AGREEMENT:
            data = tensor.numpy().tobytes()
            if self.listener is not None:
                self.listener.receive(header.sender, data)
            elif len(self.unheard) < MOST_UNHEARD:
                self.unheard.append((header.sender, data))
            return True
        if header.kind is not MessageKind.LOST:
            return False
        lost = header.microbatch
        if lost >= self.nodes:
            raise MalformedMessageError(f"there is no node {lost} to lose")
        if self.tell(lost):
            reason = f"node {lost} failed on its machine, says node {header.sender}"
            logger.error(reason)
            self.lose(lost, reason)
        return True
