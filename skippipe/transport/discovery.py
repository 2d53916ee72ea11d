"""DecCom's Kademlia discovery, hardened: authenticated datagrams, known peers only, look-ups with a deadline.

What is built around is listed in docs/architecture.md ("DecCom as published").
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import sys
from collections.abc import Callable, Iterable
from typing import Any

from deccom.peers.peer import Peer
from deccom.protocols.defaultprotocol import DefaultProtocol
from deccom.protocols.peerdiscovery.kademliadiscovery import KademliaDiscovery

from skippipe.transport.addresses import Address, Neighbourhood, let_deccom_write_ipv6, shown_address
from skippipe.transport.greeting import Greetings
from skippipe.transport.guests import BoundedLog

logger = logging.getLogger(__name__)

LOOKUP_RETRY_SECONDS = 0.25
LONGEST_LOOKUP_RETRY_SECONDS = 5.0
LARGEST_BUCKET = 80
MOST_SEARCHES = 2
"""At once: what one finds spares the others theirs, while searches for all at once ask everybody for all."""
MOST_SAID = 4096
PEERS_OF_AN_ANSWER = 10
"""As in published deccom: with this many a datagram is shorter than MOST_DATAGRAM_BYTES."""


class PeerNotFoundError(Exception):
    """No answer about a peer within the deadline."""


@functools.cache
def adapt_deccom() -> None:
    """Send what deccom prints to our log at debug level, and let it write IPv6 addresses; done once."""
    let_deccom_write_ipv6()

    def log_print(*values: object, **_: object) -> None:
        logger.debug("deccom: %s", " ".join(map(str, values)))

    for name, module in list(sys.modules.items()):
        if name.startswith("deccom."):
            module.__dict__["print"] = log_print


class SealedDatagrams(DefaultProtocol):  # type: ignore[misc]
    """DecCom's UDP end of the stack, under greetings (greeting.py); what does not verify changes nothing."""

    def __init__(
        self,
        greetings: Greetings,
        neighbourhood: Neighbourhood,
        on_difference: Callable[[Address, list[str]], None],
    ) -> None:
        """`on_difference` is told of machines that hold the secret, but run something else."""
        super().__init__()
        self.greetings = greetings
        self.way = neighbourhood.way
        self.on_difference = on_difference
        self.log = BoundedLog(logger)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Take a datagram from the socket."""
        if not self.started:
            return
        received = self.greetings.receive(data, self.loop.time())
        if received.stranger:
            self.log.warning("ignored a datagram without our secret from %s", shown_address(addr))
            return
        for answer in received.answers:
            self.transport.sendto(answer, self.way(received.sender))
        if received.differences:
            self.on_difference(received.sender, received.differences)
        content = received.content
        if content is None or len(content) < 9:
            return
        if content[:8] == self.uniqueid:
            self.process_datagram(received.sender, content[8:])
        else:
            self.callback(received.sender, content)

    async def sendto(self, msg: bytes, addr: Address) -> None:
        """Send a datagram; one to ourselves is dropped, as in deccom."""
        if tuple(addr) != self.greetings.me and not self.transport.is_closing():
            for datagram in self.greetings.send(bytes(msg), (addr[0], addr[1]), self.loop.time()):
                self.transport.sendto(datagram, self.way(addr))

    def error_received(self, error: Exception) -> None:
        """A peer that is not there yet refuses datagrams; the look-up's retry deals with it."""
        logger.debug("datagram not delivered: %s", error)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket was closed."""
        self.started = False


class Discovery(KademliaDiscovery):  # type: ignore[misc]
    """DecCom's Kademlia table of this cluster's peers."""

    def __init__(self, bootstrap: list[Peer], members: Iterable[bytes]) -> None:
        self.members = frozenset(members)
        # One bucket that holds everyone spares small clusters the look-ups that published deccom may never answer.
        super().__init__(bootstrap_peers=bootstrap, interval=10, k=min(max(20, len(self.members)), LARGEST_BUCKET))
        self.log = BoundedLog(logger)
        self.searching = asyncio.Semaphore(MOST_SEARCHES)
        self.said: dict[tuple[bytes, Address], float] = {}
        """When an introduction or a question for one was sent last (loop time), by datagram and address."""
        self.replaceable: set[bytes] = set()
        """Node ids of which another process may come, perhaps at another address: the one before was lost."""

    def process_datagram(self, addr: Address, data: bytes) -> None:
        """Handle a discovery datagram of ours; a malformed one is dropped with a log line."""
        try:
            if data[0] == self.INTRODUCTION and self.is_taken(addr, Peer.from_bytes(data[1:])[0].id_node):
                return
            super().process_datagram(addr, data)
        except (IndexError, ValueError, KeyError, AttributeError, TypeError, asyncio.InvalidStateError) as error:
            self.log.warning("malformed discovery datagram from %s (%s)", shown_address(addr), error)
        # Published deccom remembers every FIND for ever and never reads what it remembers.
        self.sent_finds.clear()

    def is_taken(self, addr: Address, identity: bytes) -> bool:
        """Whether somebody else bears this node's id already: who comes later, under another address, is not it.

        Of a node that was lost another process may come, on another machine too.
        """
        known = self.get_peer(identity)
        taken = known is not None and tuple(known.addr[:2]) != tuple(addr[:2]) and identity not in self.replaceable
        if taken:
            there = shown_address(known.addr)
            self.log.warning("%s introduces itself as a node that is at %s", shown_address(addr), there)
        return taken

    def add_peer(self, addr: Address, p: Peer) -> None:
        """Take a peer into the table if it is one of the cluster's nodes."""
        if p.id_node in self.members:
            super().add_peer(addr, p)

    def refresh_table(self) -> None:
        """Ask for nodes that are not known; published deccom asks for ever, and each answer names everybody."""
        if self.members <= {self.peer.id_node, *self.peers}:
            self.refresh_loop = asyncio.get_running_loop().call_later(self.interval, self.refresh_table)
        else:
            super().refresh_table()

    async def send_datagram(self, msg: bytes, addr: Address) -> None:
        """Send a datagram, but no introduction or question for one that has just gone there.

        Each answer to a search names everybody, and published deccom then writes to all of them whom it does not know.
        """
        if msg[0] in (self.INTRODUCTION, self.ASK_FOR_ID):
            now, said = asyncio.get_running_loop().time(), (bytes(msg), (addr[0], addr[1]))
            if now - self.said.get(said, -math.inf) < LOOKUP_RETRY_SECONDS:
                return
            if len(self.said) >= MOST_SAID:
                self.said.clear()
            self.said[said] = now
        await super().send_datagram(msg, addr)

    def send_find_response(self, addr: Address, best_guess: list[Peer], uniq_id: bytes) -> None:
        """Name these peers; published deccom always sends as many datagrams as its largest answer takes."""
        for begin in range(0, len(best_guess), PEERS_OF_AN_ANSWER):
            peers = b"".join(map(bytes, best_guess[begin : begin + PEERS_OF_AN_ANSWER]))
            answer = bytes([self.RESPOND_FIND]) + uniq_id + peers
            asyncio.get_running_loop().create_task(self.send_datagram(answer, addr))

    async def look_up(self, identity: bytes, deadline: float) -> Peer:
        """The peer with this id. PeerNotFoundError if it is not found by `deadline` (loop time)."""
        loop = asyncio.get_running_loop()
        wait = LOOKUP_RETRY_SECONDS
        while (peer := self.get_peer(identity)) is None:
            if loop.time() >= deadline:
                raise PeerNotFoundError(identity.hex()[:12])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await self.search(identity, wait)
            wait = min(1.5 * wait, LONGEST_LOOKUP_RETRY_SECONDS)
        return peer

    async def search(self, identity: bytes, seconds: float) -> None:
        """Ask for a peer when few others are asked for, and wait for it: it may not be there yet."""
        asking = None
        try:
            async with self.searching:
                if self.get_peer(identity) is None:
                    asking = asyncio.create_task(self.ask(identity))
                    await asyncio.wait([asking], timeout=LOOKUP_RETRY_SECONDS)
            if asking is not None:
                await asyncio.wait([asking], timeout=seconds - LOOKUP_RETRY_SECONDS)
        finally:
            if asking is not None:
                self.give_up(identity, asking)

    async def ask(self, identity: bytes) -> None:
        """Ask the bootstrap nodes and those that they know, until the peer introduces itself."""
        for known in self.bootstrap_peers:
            await self.introduce_to_peer(known)
        await self.find_peer(identity)

    def give_up(self, identity: bytes, asking: asyncio.Task[None]) -> None:
        """End a search; OSError if it failed by itself."""
        if asking.done():
            asking.result()
        else:
            asking.cancel()
            self.forget_search(identity)

    def forget_search(self, identity: bytes) -> None:
        """Drop a search that got no answer: published deccom would wait for its future for ever, or raise."""
        crawl: tuple[Any, bytes] | None = self.peer_crawls.pop(identity, None)
        if crawl is not None:
            self.searches.pop(crawl[1], None)
            self.finders.pop(crawl[1], None)
