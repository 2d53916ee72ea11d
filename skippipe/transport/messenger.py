"""What the torch thread sends over links, and the collectives that it takes part in with what comes over them."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

import torch

from skippipe.transport.collective import Collective, Identity, Outgoing
from skippipe.transport.inbox import Inbox
from skippipe.transport.message import HEADER, Encoding, Header, MessageKind, pack
from skippipe.transport.sender import Sender
from skippipe.transport.work import Work


class Messenger(ABC):
    """One node's messages to others, over whatever a subclass opens."""

    loop: asyncio.AbstractEventLoop
    """Of the network thread."""

    def __init__(self, node: int, inbox: Inbox, encodings: Mapping[int, Encoding]) -> None:
        """What comes from others is in the inbox; `encodings` says how to write what goes to a node, if not in fp32."""
        self.node = node
        self.inbox = inbox
        self.encodings = encodings
        self.work = Work()
        """What the executor does; it says so itself."""
        self.bytes_sent = 0

    @abstractmethod
    def sender(self, node: int) -> Sender:
        """What sends to a node (network thread)."""

    def send(self, node: int, header: Header, tensor: torch.Tensor) -> None:
        """Send a tensor; returns at once. Its memory must not change until it is delivered.

        What goes to this node itself, from the only stage that is left to its loss, goes over no link.
        """
        if node == self.node:
            self.loop.call_soon_threadsafe(self.inbox.put, header, tensor.detach())
            return
        packed, payload = pack(header, tensor, self.encodings.get(node, Encoding.FP32))
        self.bytes_sent += HEADER.size + len(payload)
        self.loop.call_soon_threadsafe(self.send_now, node, packed, payload)

    def send_now(self, node: int, packed: bytes, payload: memoryview) -> None:
        """Queue a packed message (network thread)."""
        self.sender(node).send(packed, payload)

    def run(self, collective: Collective, identity: Identity, sent_at: float = 0.0) -> float:
        """Take part in a collective until it is done; the latest `sent_at` of all from whom something came, and ours.

        These are wire seconds of our clock. Raises PeerLostError if the network's thread has given up a peer.
        """
        self.post(identity, collective.begin(), sent_at)
        latest = sent_at
        while not collective.done:
            header, tensor = self.take_arrived(identity)
            latest = max(latest, header.sent_at)
            self.post(identity, collective.receive(header, tensor), sent_at)
        return latest

    def take_arrived(self, identity: Identity) -> tuple[Header, torch.Tensor]:
        """The next message of a collective. Raises PeerLostError if the network's thread has given up a peer."""
        with self.work.waiting():
            return self.inbox.take_arrived(identity)

    def post(self, identity: Identity, messages: Iterable[Outgoing], sent_at: float) -> None:
        """Send what belongs to a collective, exactly; the tensors' memory must not change until it is delivered."""
        iteration, sequence, view = identity
        packed = [
            (receiver, *pack(Header(kind, iteration, sequence, self.node, sent_at, part, view), tensor))
            for receiver, kind, part, tensor in messages
        ]
        if packed:
            self.loop.call_soon_threadsafe(self.send_all, packed)

    def send_all(self, packed: list[tuple[int, bytes, memoryview]]) -> None:
        """Queue packed messages (network thread)."""
        for message in packed:
            self.send_now(*message)

    def send_agreement(self, node: int, data: bytes) -> None:
        """Send bytes by which nodes agree on who goes on (network thread)."""
        tensor = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        self.send_now(node, *pack(Header(MessageKind.AGREEMENT, 0, 0, self.node, 0.0), tensor))
