"""A node's DecCom stack in a thread of its own: what the torch thread sends through and receives from."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future

import numpy as np
from deccom.peers.peer import Peer
from numpy.typing import NDArray

from skippipe.transport.addresses import Address, Neighbourhood, Place, shown_address
from skippipe.transport.buffers import BufferPool
from skippipe.transport.connected import Surroundings
from skippipe.transport.conversation import Handlers
from skippipe.transport.discovery import Discovery, SealedDatagrams, adapt_deccom
from skippipe.transport.greeting import Greetings
from skippipe.transport.identity import node_id, public_name
from skippipe.transport.inbox import Inbox, LinksBrokenError, PeerLostError
from skippipe.transport.invitation import Desk
from skippipe.transport.losses import Losses
from skippipe.transport.membership import Limits, Listeners, Membership
from skippipe.transport.message import Encoding, MalformedMessageError, unpack
from skippipe.transport.messenger import Messenger
from skippipe.transport.network import NetworkThread, check_end
from skippipe.transport.run_identity import RUN_ID, differs
from skippipe.transport.sender import Sender
from skippipe.transport.streams import PeerStreams
from skippipe.transport.work import WorkState

logger = logging.getLogger(__name__)


class Links(Messenger):
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
        desk: Desk | None = None,
    ) -> None:
        """`bootstrap` are datagram addresses of some of the run's nodes; a node that `joins` comes later than they.

        At the `desk`, if there is one, machines that were invited get what they need.

        If it is `proven` that this node runs what they do, whoever runs something else can't end it.

        `encodings` says how to write what goes to a node, if not in fp32; from the file descriptor `notices` comes what
        the launcher knows of nodes that failed on this machine.
        """
        super().__init__(membership.node, inbox, encodings or {})
        self.neighbourhood = neighbourhood or Neighbourhood({})
        self.membership = membership
        self.members = [node_id(member) for member in range(membership.nodes)]
        self.numbers = {identity: number for number, identity in enumerate(self.members)}
        self.listeners = listeners
        self.bootstrap = [address for address in bootstrap if address != listeners.address]
        self.limits = limits
        self.around = Surroundings(inbox.clock, self.work, BufferPool(), limits.connect_seconds, limits.silence_seconds)
        self.network = NetworkThread(self.break_down)
        self.loop = self.network.loop
        self.discovery: Discovery
        self.streams: PeerStreams
        self.senders: dict[int, Sender] = {}
        """By the node that they send to."""
        self.losses = Losses(self.node, membership.nodes, notices, self.senders, self.sender, self.lose, joins)
        self.joins = joins
        self.desk = desk
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
            discovery, secret, run, self.limits.message_bytes, handlers, self.around, self.neighbourhood, self.desk
        )
        if self.joins:
            # Any of them may have a connection to this node's former process in mind.
            self.streams.replaceable.update(self.members)
            self.streams.comes_later = True
            if self.desk is not None:
                self.desk.has_begun = True
        await self.loop.create_datagram_endpoint(self.streams.get_lowest, sock=self.listeners.datagrams)
        me = Peer(self.listeners.address, pub_key=public_name(self.node), tcp=self.listeners.stream_port)
        await self.streams.start(me)
        self.add(self.neighbourhood.places)
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
        what = differs(where, names)
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

    def try_again(self, node: int) -> None:
        """Find out anew whether a peer can be reached that was given up and not forgotten (network thread)."""
        sender = self.senders.get(node)
        if sender is not None and sender.task.done() and not sender.is_resting:
            sender.wake()

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

    def learn(self, places: Mapping[int, Place]) -> None:
        """Remember where nodes are: nobody may be left to ask for them later."""

        async def add() -> None:
            self.add(places)

        asyncio.run_coroutine_threadsafe(add(), self.loop).result()

    def add(self, places: Mapping[int, Place]) -> None:
        """Take nodes into discovery's table that are not there yet (network thread)."""
        for node, (address, port) in places.items():
            if node != self.node and self.discovery.get_peer(self.members[node]) is None:
                self.discovery.add_peer(address, Peer(address, pub_key=public_name(node), tcp=port))

    def see(self, members: Iterable[int]) -> None:
        """The run goes on with these nodes: others may be had by machines that are invited."""
        if self.desk is not None:
            self.loop.call_soon_threadsafe(self.desk.see, tuple(members))

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
