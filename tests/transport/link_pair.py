"""Two nodes with real links for tests, and a relay between them that can be slow or damage what it passes on."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import torch

from skippipe.transport.clocks import Clock
from skippipe.transport.inbox import Inbox
from skippipe.transport.links import Links
from skippipe.transport.membership import Limits, Listeners, Membership
from skippipe.transport.message import Header, MessageKind
from skippipe.transport.run_identity import RunIdentity

SECRET = b"s" * 32
MESSAGES = 200
LIMITS = Limits(1 << 24, 20.0, 10.0)
PIECE_SECONDS = 0.05
ACTIVATION = MessageKind.ACTIVATION


@dataclass(frozen=True)
class Relayed(Listeners):
    """Listeners to which peers connect through a relay."""

    relay_port: int = 0

    @property
    def stream_port(self) -> int:
        """The relay's port."""
        return self.relay_port


@dataclass(frozen=True)
class Way:
    """One direction of a relay."""

    bytes_a_second: float = 1e9
    damage: Callable[[bytearray], None] = lambda data: None
    delay_s: float = 0.0

    @property
    def piece_bytes(self) -> int:
        """What passes at once: little enough to flow rather than to come in bursts."""
        return min(1 << 16, max(1, int(self.bytes_a_second * PIECE_SECONDS)))

    def carry(self, data: bytearray) -> None:
        """Take the time that a piece takes, and change it."""
        time.sleep(len(data) / self.bytes_a_second + self.delay_s)
        self.damage(data)


class Relay:
    """Passes the bytes of connections on, in two directions that may differ."""

    def __init__(self, target: int, forth: Way, back: Way) -> None:
        self.target = target
        self.forth, self.back = forth, back
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.sockets: list[socket.socket] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
                self.sockets.append(client)
                threading.Thread(target=self.connect, args=(client,), daemon=True).start()

    def connect(self, client: socket.socket) -> None:
        """Connect when the first bytes have come: over a far link, too, both get there together."""
        with contextlib.suppress(OSError):
            data = bytearray(client.recv(self.forth.piece_bytes))
            self.forth.carry(data)
            server = socket.create_connection(("127.0.0.1", self.target))
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sockets.append(server)
            server.sendall(data)
            threading.Thread(target=self.pump, args=(server, client, self.back), daemon=True).start()
            self.pump(client, server, self.forth)

    @staticmethod
    def pump(source: socket.socket, sink: socket.socket, way: Way) -> None:
        with contextlib.suppress(OSError):
            while data := bytearray(source.recv(way.piece_bytes)):
                way.carry(data)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for one in (self.listener, *self.sockets):
            one.close()


@dataclass
class Setup:
    """How two nodes are set up; node 0 sends to node 1."""

    limits: Limits = LIMITS
    forth: Way | None = None
    """What a relay between them does to what goes to node 1, if there is one."""
    back: Way = field(default_factory=Way)
    """And to what comes back."""
    clocks: tuple[Clock, Clock] = field(default_factory=lambda: (Clock(), Clock()))
    hop_s: float = 0.0
    runs: tuple[RunIdentity, RunIdentity] = field(default_factory=lambda: (RunIdentity(), RunIdentity()))


@dataclass
class Pair:
    """Both nodes."""

    sender: Links
    receiver: Links

    @property
    def inbox(self) -> Inbox:
        """Where messages arrive."""
        return self.receiver.inbox

    def send(self, number: int, tensor: torch.Tensor, iteration: int = 0, sender: int = 0) -> float:
        """Send a message now; the monotonic time."""
        clock = self.sender.inbox.clock
        now = clock.now()
        self.sender.send(1, Header(ACTIVATION, iteration, number, sender, clock.wire(now)), tensor)
        return now


def receive(inbox: Inbox, number: int, seconds: float = 60) -> tuple[float, torch.Tensor]:
    """When a message's hop is over, and its tensor; PeerLostError if it does not come."""
    watchdog = threading.Timer(seconds, inbox.fail, ["nothing came"])
    watchdog.start()
    try:
        return inbox.take((ACTIVATION, 0, number))
    finally:
        watchdog.cancel()


def wait_for_failure(inbox: Inbox, seconds: float) -> str | None:
    """Why a peer is lost, if that becomes known within so many seconds."""
    with inbox.changed:
        inbox.changed.wait_for(lambda: inbox.failure is not None, seconds)
        return inbox.failure


@contextlib.contextmanager
def open_pair(setup: Setup | None = None) -> Iterator[Pair]:
    """Two nodes that are not connected yet."""
    setup = setup or Setup()
    listeners = [Listeners.bind("127.0.0.1") for _ in range(2)]
    bootstrap, relay = [listeners[0].address], None
    if setup.forth is not None:
        ours = listeners[1]
        relay = Relay(ours.stream_port, setup.forth, setup.back)
        listeners[1] = Relayed(ours.host, ours.datagrams, ours.streams, relay_port=relay.port)
    made = []
    for node in range(2):
        senders = {(ACTIVATION, number): 1 - node for number in range(MESSAGES)}
        inbox = Inbox(senders, lambda sender: setup.hop_s, clock=setup.clocks[node])
        membership = Membership(node, 2, SECRET, setup.runs[node])
        made.append(Links(membership, listeners[node], bootstrap, setup.limits, inbox))
        made[node].start()
    try:
        yield Pair(*made)
    finally:
        for links in made:
            links.close()
        if relay is not None:
            relay.close()


def cut_all(pair: Pair) -> None:
    """Cut the connections to the receiver (in its network thread)."""
    for neighbour in pair.receiver.streams.neighbours.values():
        if neighbour.reader is not None and neighbour.reader.connection.fileno() >= 0:
            neighbour.reader.connection.shutdown(socket.SHUT_RDWR)


def wait_for_line(log: pytest.LogCaptureFixture, line: str) -> None:
    """Wait until a line with this in it is in the log."""
    deadline = time.monotonic() + 30
    while line and not any(line in record.getMessage() for record in log.records):
        assert time.monotonic() < deadline, log.text
        time.sleep(0.02)
