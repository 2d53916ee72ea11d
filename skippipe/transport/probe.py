"""Whether other machines can be reached: greets and calls them as nodes would, and answers theirs, but is no node.

A run that is there takes no notice: it is greeted, which it answers whoever asks, and its handshake is left half way.
Another probe is called, and both tell what they know, so that each learns of all.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from skippipe.transport.addresses import Address, pack_host
from skippipe.transport.call import Call, Service, Switchboard, call, connect, knock, reason_of
from skippipe.transport.greeting import GREETING, SESSION_BYTES, Greetings
from skippipe.transport.handshake import Introduction
from skippipe.transport.identity import AuthenticationError, WrongSecretError, node_id
from skippipe.transport.membership import Listeners
from skippipe.transport.run_identity import RunIdentity

SERVICE = "skippipe check"
TURN_SECONDS = 0.25
DATAGRAM_SECONDS = 2.0
"""So long an answer to a greeting is waited for before a connection is tried without knowing who is there."""
LINGER_SECONDS = 2.0
"""How long others are given to learn the last of what they want to know."""
MOST_WORD_BYTES = 1 << 18
MOST_WAYS = 1024


@dataclass(frozen=True)
class Word:
    """What one probe tells another."""

    nodes: dict[int, Address]
    """Its own, and where others reach them."""
    about: dict[str, str]
    """What else is compared."""
    known: tuple[Address, ...]
    """Of nodes on other machines."""
    reached: tuple[Address, ...]
    """Those of them that it has reached by datagrams and by a connection."""
    is_done: bool
    """Whether it knows all that it wants to know."""
    time: float
    """By its wall clock, in seconds."""

    def to_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps({**self.__dict__, "nodes": list(self.nodes.items())}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What to_bytes wrote; ValueError for anything else."""
        try:
            said: dict[str, Any] = json.loads(data)
            nodes = {int(node): checked(address) for node, address in said["nodes"]}
            about = {str(name): str(text) for name, text in said["about"].items()}
            known, reached = (tuple(checked(address) for address in said[name]) for name in ("known", "reached"))
            if not nodes:
                raise ValueError("no nodes")
            return cls(nodes, about, known, reached, bool(said["is_done"]), float(said["time"]))
        except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"no word of a probe ({error})") from None


def checked(address: Any) -> Address:
    """An address as it came; ValueError if it is none."""
    host, port = address
    pack_host(host)
    if not 0 < int(port) < 1 << 16:
        raise ValueError(f"no port: {port}")
    return host, int(port)


@dataclass
class Way:
    """What is known of the way to a node's address."""

    address: Address
    greets: bool = False
    """Whether a greeting was answered, by datagrams."""
    table: bytes | None = None
    """Of the run that answers; None if it is a probe, or nobody has answered."""
    connects: bool = False
    """Whether a connection was answered under the secret."""
    trouble: str = "not tried yet"
    """Why not."""
    hangs_up: bool = False
    """Whether somebody was there who did not take our secret."""
    word: Word | None = None
    """The last that was heard there."""
    clock: tuple[float, float] | None = None
    """Seconds that the wall clock there is ahead, and how far that may be off."""

    @property
    def is_open(self) -> bool:
        """Whether a node could be reached there."""
        return self.greets and self.connects


class Greeter(asyncio.DatagramProtocol):
    """One node's datagrams."""

    transport: asyncio.DatagramTransport

    def __init__(self, greetings: Greetings, probe: Probe) -> None:
        self.greetings = greetings
        self.probe = probe

    def greet(self, address: Address) -> None:
        """Greet whoever may be at an address."""
        self.transport.sendto(self.greetings.introduction(GREETING, bytes(SESSION_BYTES)), address)

    def datagram_received(self, data: bytes, _: tuple[Any, ...]) -> None:
        """Answer another probe; a run is not answered: one that is starting would take us for one of its nodes."""
        received = self.greetings.receive(data, asyncio.get_running_loop().time())
        if received.stranger:
            return
        is_probe = received.table == self.greetings.run.table
        for answer in received.answers if is_probe else ():
            self.transport.sendto(answer, received.sender)
        if is_probe or received.is_welcome:
            self.probe.hear_greeting(received.sender, None if is_probe else received.table, received.is_welcome)


@dataclass
class Probe:
    """Looks for the nodes of other machines."""

    listeners: Mapping[int, Listeners]
    """Of this machine's nodes; at least one."""
    targets: Iterable[Address]
    """Where nodes of other machines are expected."""
    secret: bytes | None
    about: dict[str, str]
    """What other probes are told of this one."""
    node_at: Callable[[Address], int | None]
    """Which node of a run is expected at an address."""
    nodes: int
    """Of the run."""
    ways: dict[Address, Way] = field(default_factory=dict)
    words: dict[int, Word] = field(default_factory=dict)
    """The last word of each other probe, by its first node."""
    strangers: set[str] = field(default_factory=set)
    """Hosts from which somebody has called under another secret."""

    def __post_init__(self) -> None:
        self.service = Service(SERVICE, self.secret)
        self.own = {node: listeners.address for node, listeners in self.listeners.items()}
        self.is_done = False
        self.learn(self.targets)

    def learn(self, addresses: Iterable[Address]) -> None:
        """Look for nodes at these addresses too."""
        for address in addresses:
            if address not in self.own.values() and len(self.ways) < MOST_WAYS:
                self.ways.setdefault(address, Way(address))

    @property
    def reached(self) -> tuple[Address, ...]:
        """Addresses where a node could be reached."""
        return tuple(address for address, way in self.ways.items() if way.is_open)

    @property
    def is_complete(self) -> bool:
        """Whether all that is known of can be reached and reaches this machine, and nobody is missing."""
        if len(self.reached) < len(self.ways):
            return False
        if any(not set(self.own.values()) <= set(word.reached) for word in self.words.values()):
            return False
        here = {*self.own, *(node for word in self.words.values() for node in word.nodes)}
        runs = [way for way in self.ways.values() if way.table is not None]
        return len(here) == self.nodes or len(runs) == len(self.ways) > 0

    def word(self) -> Word:
        """What this probe has to tell now."""
        return Word(self.own, self.about, tuple(self.ways), self.reached, self.is_done, time.time())

    def hear(self, data: bytes) -> Word:
        """Take another probe's word; ConnectionError if it is none."""
        try:
            word = Word.from_bytes(data)
        except ValueError as error:
            raise ConnectionError(str(error)) from None
        self.words[min(word.nodes)] = word
        self.learn((*word.nodes.values(), *word.known))
        return word

    def hear_greeting(self, address: Address, table: bytes | None, is_welcome: bool) -> None:
        """Somebody who holds the secret is at an address: a run with this table, or another probe."""
        self.learn([address])
        if is_welcome and address in self.ways:
            self.ways[address].greets, self.ways[address].table = True, table

    async def run(self, seconds: float) -> None:
        """Look and answer, until all is known or for so many seconds; the sockets are closed then."""
        switchboard = Switchboard(self.service, self.take, self.note_trouble)
        greeters = [await self.listen(listeners) for listeners in self.listeners.values()]
        serving = [asyncio.create_task(switchboard.serve(own.streams)) for own in self.listeners.values()]
        try:
            await self.look(greeters[0], asyncio.get_running_loop().time(), seconds)
        finally:
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)
            for greeter in greeters:
                greeter.transport.close()
            for listeners in self.listeners.values():
                listeners.close()

    async def listen(self, listeners: Listeners) -> Greeter:
        """Take a node's datagrams from now on; its connections must not block either."""
        listeners.datagrams.setblocking(False)
        listeners.streams.setblocking(False)
        greeter = Greeter(Greetings(listeners.address, self.secret, self.service.run), self)
        loop = asyncio.get_running_loop()
        greeter.transport, _ = await loop.create_datagram_endpoint(lambda: greeter, sock=listeners.datagrams)
        return greeter

    async def look(self, greeter: Greeter, began: float, seconds: float) -> None:
        """Greet and connect again and again; sooner over if neither this probe nor another has anything more to ask."""
        loop, trying, complete_at = asyncio.get_running_loop(), dict[Address, asyncio.Task[None]](), float("inf")
        while (now := loop.time()) < began + seconds:
            for way in list(self.ways.values()):
                if not way.greets:
                    greeter.greet(way.address)
                before = trying.get(way.address)
                if (way.greets or now - began > DATAGRAM_SECONDS) and (before is None or before.done()):
                    trying[way.address] = asyncio.create_task(self.try_connection(way))
            self.is_done = self.is_complete
            complete_at = min(complete_at, now) if self.is_done else float("inf")
            if self.is_done and all(word.is_done for word in self.words.values()):
                break
            if now - complete_at > LINGER_SECONDS:
                break
            await asyncio.sleep(TURN_SECONDS)
        for task in trying.values():
            task.cancel()
        await asyncio.gather(*trying.values(), return_exceptions=True)
        # Whoever still looks learns that this probe is done; some are gone already.
        last = [self.ways[word.nodes[min(word.nodes)]] for word in self.words.values()]
        await asyncio.gather(*(self.try_connection(way) for way in last))

    async def try_connection(self, way: Way) -> None:
        """Connect to whoever is at an address, as it must be done with it; note what came of it."""
        try:
            if way.table is None:
                await self.converse(way)
            else:
                await self.knock(way, way.table)
            way.connects, way.trouble = True, ""
        except (AuthenticationError, OSError) as error:
            way.trouble = reason_of(error)
            way.hangs_up = way.hangs_up or isinstance(error, WrongSecretError)
        await asyncio.sleep(TURN_SECONDS)

    async def converse(self, way: Way) -> None:
        """Exchange words with a probe."""
        made = await call(way.address, self.service)
        try:
            sent = time.time()
            await made.send(self.word().to_bytes())
            data = await made.receive(MOST_WORD_BYTES)
            received = time.time()
        finally:
            made.close()
        way.word = self.hear(data)
        error = (received - sent) / 2
        if way.clock is None or error < way.clock[1]:
            way.clock = way.word.time - (sent + received) / 2, error

    async def knock(self, way: Way, table: bytes) -> None:
        """Have a node of a run answer; if it is not known which one it is, only connect."""
        node = self.node_at(way.address)
        if node is None:
            (await connect(way.address, TURN_SECONDS)).close()
            return
        run, clock = RunIdentity.of_table(table), self.service.clock
        me = Introduction(node_id(min(self.listeners)), self.service.session, run, clock.identity)
        await knock(way.address, me, node_id(node), self.secret)

    async def take(self, made: Call) -> None:
        """Another probe calls."""
        self.hear(await made.receive(MOST_WORD_BYTES))
        await made.send(self.word().to_bytes())

    def note_trouble(self, address: Address, error: Exception) -> None:
        """A call to us came to nothing."""
        if isinstance(error, WrongSecretError) and len(self.strangers) < MOST_WAYS:
            self.strangers.add(address[0])
