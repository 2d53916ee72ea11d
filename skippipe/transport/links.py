"""A node's DecCom stack in a thread of its own: what the torch thread sends through and receives from."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future

import numpy as np
import torch
from deccom.peers.peer import Peer
from numpy.typing import NDArray

from skippipe.transport.addresses import Address, Neighbourhood, shown_address
from skippipe.transport.buffers import BufferPool
from skippipe.transport.collective import Collective, Identity, Outgoing
from skippipe.transport.connected import Surroundings
from skippipe.transport.conversation import Handlers
from skippipe.transport.discovery import Discovery, SealedDatagrams, adapt_deccom
from skippipe.transport.greeting import Greetings
from skippipe.transport.identity import node_id, public_name
from skippipe.transport.inbox import Inbox, LinksBrokenError, PeerLostError
from skippipe.transport.losses import Losses
from skippipe.transport.membership import Limits, Listeners, Membership
from skippipe.transport.message import HEADER, Encoding, Header, MalformedMessageError, MessageKind, pack, unpack
from skippipe.transport.network import NetworkThread, check_end
from skippipe.transport.run_identity import RUN_ID
from skippipe.transport.sender import Sender
from skippipe.transport.streams import PeerStreams
from skippipe.transport.work import Work, WorkState

logger = logging.getLogger(__name__)


class Links:
    """Peer-to-peer links of one node; every method is called from the torch thread."""

    def __init__(
        self,
        membership: Membership,
        listeners: Listeners,
        bootstrap: Iterable[Address],
        limits: Limits,
        inbox: Inbox,
        encodings: dict[int, Encoding] | None = None,
        notices: int | None = None,
        neighbourhood: Neighbourhood | None = None,
        joins: bool = False,
        proven: bool = False,
    ) -> None:
        """`bootstrap` are datagram addresses of some of the run's nodes; a node that `joins` comes later than they.

        If it is `proven` that this node runs what they do, whoever runs something else can't end it.

        `encodings` says how to write what goes to a node, if not in fp32; from the file descriptor `notices` comes what
        the launcher knows of nodes that failed on this machine.
        """
        self.neighbourhood = neighbourhood or Neighbourhood({})
        self.encodings = encodings or {}
        self.membership = membership
        self.node = membership.node
        self.members = [node_id(member) for member in range(membership.nodes)]
        self.numbers = {identity: number for number, identity in enumerate(self.members)}
        self.listeners = listeners
        self.bootstrap = [address for address in bootstrap if address != listeners.address]
        self.limits = limits
        self.inbox = inbox
        self.work = Work()
        """What the executor does; it says so itself."""
        self.around = Surroundings(inbox.clock, self.work, BufferPool(), limits.connect_seconds, limits.silence_seconds)
        self.bytes_sent = 0
        self.network = NetworkThread(self.break_down)
        self.loop = self.network.loop
        self.discovery: Discovery
        self.streams: PeerStreams
        self.senders: dict[int, Sender] = {}
        """By the node that they send to."""
        self.losses = Losses(self.node, membership.nodes, notices, self.senders, self.sender, self.lose, joins)
        self.joins = joins
        self.joined = proven
        """Whether this node was one of the run once: whoever runs something else can't end it from then on."""
        self.axis: float | None = None
        """What axis_offset gives from now on, if node 0 was lost or this node has come later."""
        self.failed = asyncio.Event()
        """Set (in the event loop) when a peer is lost."""

    def start(self) -> None:
        """Start the network thread and the stack in it; UserError if the machine is too busy for that."""
        self.network.start(self.open(), self.limits.connect_seconds, f"the links of node {self.node}")

    async def open(self) -> None:
        """Build the DecCom stack: datagrams, discovery, streams."""
        adapt_deccom()
        for listener in (self.listeners.datagrams, self.listeners.streams):
            listener.setblocking(False)
        run, secret = self.membership.run, self.membership.secret
        datagrams = SealedDatagrams(
            Greetings(self.listeners.address, secret, run), self.neighbourhood, self.on_difference
        )
        known = [Peer(address, pub_key="") for address in self.bootstrap]
        discovery = self.discovery = Discovery(known, self.members)
        discovery.set_lower(datagrams)
        handlers = Handlers(self.deliver, self.on_refused, self.on_work)
        self.streams = PeerStreams(
            discovery, secret, run, self.limits.message_bytes, handlers, self.around, self.neighbourhood
        )
        if self.joins:
            # Any of them may have a connection to this node's former process in mind.
            self.streams.replaceable.update(self.members)
            self.streams.comes_later = True
        await self.loop.create_datagram_endpoint(self.streams.get_lowest, sock=self.listeners.datagrams)
        me = Peer(self.listeners.address, pub_key=public_name(self.node), tcp=self.listeners.stream_port)
        await self.streams.start(me)
        self.server = asyncio.create_task(self.streams.serve(self.listeners.streams))
        self.server.add_done_callback(check_end)
        self.losses.watch(self.loop)

    def deliver(self, peer: bytes, offset: float, body: NDArray[np.uint8]) -> None:
        """Take a frame's body into the inbox (network thread)."""
        header, tensor = unpack(body)
        if header.sender != self.numbers[peer]:
            raise MalformedMessageError(f"node {self.numbers[peer]} sends as node {header.sender}")
        if not self.losses.receive(header, tensor):
            self.inbox.put(header._replace(sent_at=header.sent_at + offset), tensor)

    def on_refused(self, peer: bytes, reason: str) -> None:
        """A peer sends again what can't be taken (network thread)."""
        node = self.numbers[peer]
        self.losses.give_up(node, f"node {node} sends what this node must refuse: {reason}")

    def on_work(self, peer: bytes, state: WorkState) -> None:
        """A heartbeat says how far a peer's executor is (network thread)."""
        if state.hangs(self.limits.work_seconds):
            node = self.numbers[peer]
            self.losses.give_up(node, f"node {node} hangs: {state.what} has taken {state.seconds:.0f} s", hangs=True)

    def on_difference(self, address: Address, names: list[str]) -> None:
        """A machine that holds the secret runs something else (network thread)."""
        where = shown_address(address)
        what = f"{where} runs something else; it differs in: {', '.join(names)}"
        if names == [RUN_ID]:
            what = f"{where} runs the same under another launcher of node 0; end one of the two"
        if self.joined:
            self.streams.log.warning("%s", what)
        else:
            self.fail(what)

    def sender(self, node: int) -> Sender:
        """What sends to a node, started on first use (network thread)."""
        sender = self.senders.get(node)
        if sender is not None and (sender.is_resting or self.members[node] in self.streams.replaceable):
            sender.wake()
        if sender is None:
            connect = functools.partial(self.streams.connect, self.members[node])
            sender = self.senders[node] = Sender(node, connect, self.losses.give_up, self.around)
        return sender

    def forget(self, node: int) -> None:
        """Send nothing more to a node that is lost (network thread); another process of it may come back."""
        if node == 0:
            # Where it comes back may be another clock.
            self.axis = self.axis_offset()
        self.streams.replaceable.add(self.members[node])
        sender = self.senders.get(node)
        if sender is not None:
            sender.let_go()

    def lose(self, node: int, reason: str) -> None:
        """Nobody can go on without a node that is lost (network thread)."""
        self.inbox.lose(node, reason)
        if self.inbox.failure is not None:
            self.failed.set()

    def fail(self, reason: str) -> None:
        """The run can't begin (network thread)."""
        logger.error(reason)
        self.inbox.fail(reason)
        self.failed.set()

    def break_down(self, reason: str) -> None:
        """These links can't be relied on any more (network thread)."""
        self.inbox.fail(reason, LinksBrokenError)
        self.failed.set()

    def connect(self, nodes: Iterable[int]) -> None:
        """Open the links to the nodes that this one sends to; PeerLostError if one can't be reached in time."""

        async def connect_all() -> None:
            senders = [self.sender(node) for node in nodes]
            failed = asyncio.create_task(self.failed.wait())
            connected = [asyncio.create_task(sender.connected.wait()) for sender in senders]
            ends = [asyncio.shield(sender.task) for sender in senders]
            try:
                for sender, wait, end in zip(senders, connected, ends, strict=True):
                    await asyncio.wait((wait, end, failed), return_when=asyncio.FIRST_COMPLETED)
                    if not sender.connected.is_set():
                        self.inbox.check_failure()
                        raise PeerLostError(f"{sender.name} can't be reached")
                self.joined = True
            finally:
                for wait in (failed, *connected):
                    wait.cancel()

        pending: Future[None] = asyncio.run_coroutine_threadsafe(connect_all(), self.loop)
        pending.result()

    def learn(self, places: Mapping[int, tuple[Address, int]]) -> None:
        """Remember the datagram address and the stream port of nodes: nobody may be left to ask for them later."""

        async def add() -> None:
            for node, (address, port) in places.items():
                if node != self.node and self.discovery.get_peer(self.members[node]) is None:
                    self.discovery.add_peer(address, Peer(address, pub_key=public_name(node), tcp=port))

        asyncio.run_coroutine_threadsafe(add(), self.loop).result()

    def axis_offset(self) -> float:
        """Seconds that the run's time, which is node 0's wire clock, is ahead of ours.

        Nodes of other machines must be connected to node 0; without such a link the clock is taken for the same.
        """
        if self.axis is not None:
            return self.axis
        return self.senders[0].offset.seconds if 0 in self.senders else 0.0

    def learn_axis(self, node: int, axis_offset: float) -> None:
        """Take the run's time from a node that has sent something, whose axis_offset is given."""
        self.axis = axis_offset - self.streams.neighbours[self.members[node]].offset

    def send(self, node: int, header: Header, tensor: torch.Tensor) -> None:
        """Send a tensor; returns at once. Its memory must not change until it is delivered."""
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

    def part(self) -> None:
        """All nodes are done and leave one after the other: who is gone now is not missed."""

        async def expect() -> None:
            self.losses.stop_listening()
            for sender in self.senders.values():
                sender.parting = True

        asyncio.run_coroutine_threadsafe(expect(), self.loop).result()

    def drain(self, seconds: float) -> None:
        """Wait until peers have acknowledged everything, at most so long."""

        def pending() -> bool:
            # Not those who were lost: nobody may be there to acknowledge anything.
            there = (sender for sender in self.senders.values() if sender.connected.is_set() and not sender.is_resting)
            return any(sender.waiting or sender.unacknowledged for sender in there)

        deadline = time.monotonic() + seconds
        while pending() and time.monotonic() < deadline:
            time.sleep(0.01)

    def close(self) -> None:
        """Stop the stack and the network thread."""

        async def shut() -> None:
            self.server.cancel()
            sending = [sender.task for sender in self.senders.values()]
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)
            await self.streams.stop()
            self.streams.get_lowest().transport.close()

        self.network.stop(shut())
        self.listeners.close()
