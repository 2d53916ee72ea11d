"""Whoever reaches the ports of a node changes nothing: peers find each other, connect, and get what was sent."""

from __future__ import annotations

import contextlib
import logging
import random
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable

import pytest
import torch

from skippipe.transport import streams
from skippipe.transport.handshake import MAGIC, OPENING_BYTES
from skippipe.transport.identity import node_id
from skippipe.transport.inbox import Inbox, PeerLostError
from skippipe.transport.invitation import Desk, NewcomerEnd
from skippipe.transport.links import Links
from skippipe.transport.membership import Limits, Listeners, Membership
from tests.attacks import Attack
from tests.cases import Layer, drives
from tests.transport.link_pair import (
    MESSAGES,
    SECRET,
    Pair,
    Setup,
    Way,
    cut_all,
    open_pair,
    receive,
    wait_for_failure,
    wait_for_line,
)
from tests.transport.test_hosting import node

FAR_SECONDS = 0.1
MANY = 64
"""Strangers that take all places."""


class Eavesdropper:
    """Remembers the first bytes that passed."""

    def __init__(self) -> None:
        self.overheard = b""

    def __call__(self, data: bytearray) -> None:
        self.overheard = self.overheard or bytes(data)


class Flood:
    """Connections that come 400 times a second, and each say the same; the last ones stay open."""

    def __init__(self, pair: Pair, words: bytes) -> None:
        self.address = pair.receiver.listeners.streams.getsockname()
        self.words = words
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.come)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def come(self) -> None:
        """Connect until the end."""
        opened: deque[socket.socket] = deque()
        while not self.ended.wait(1 / 400):
            opened.append(socket.create_connection(self.address))
            with contextlib.suppress(OSError):
                opened[-1].sendall(self.words)
            if len(opened) > 200:
                opened.popleft().close()
        for connection in opened:
            connection.close()


class Regulars(Flood):
    """MANY silent connections, each from an address of its own, that come again whenever they are closed."""

    def __init__(self, pair: Pair) -> None:
        super().__init__(pair, b"")
        self.came = 0
        self.came_again = threading.Event()

    def come(self) -> None:
        """Be there until the end."""
        with selectors.DefaultSelector() as selector:
            for number in range(MANY):
                self.connect(selector, f"127.0.1.{number + 1}")
            while not self.ended.is_set():
                for key, _ in selector.select(0.01):
                    selector.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]
                    self.connect(selector, key.data)
            for key in list(selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]

    def connect(self, selector: selectors.BaseSelector, host: str) -> None:
        """Come from an address."""
        connection = socket.create_connection(self.address, source_address=(host, 0))
        selector.register(connection, selectors.EVENT_READ, host)
        self.came += 1
        if self.came > 3 * MANY:
            self.came_again.set()


@drives(Attack.STRANGERS_KEEP_COMING, Attack.OPENING_OVERHEARD)
def test_whoever_comes_does_not_keep_a_far_peer_out(attack: Attack, caplog: pytest.LogCaptureFixture) -> None:
    ears = Eavesdropper()
    far = Setup(forth=Way(delay_s=FAR_SECONDS, damage=ears), back=Way(delay_s=FAR_SECONDS))
    with open_pair(far) as pair:
        if attack is Attack.OPENING_OVERHEARD:
            pair.sender.connect([1])
        with Flood(pair, ears.overheard[:OPENING_BYTES]):
            if attack is Attack.OPENING_OVERHEARD:
                pair.receiver.loop.call_soon_threadsafe(cut_all, pair)
            pair.sender.connect([1])
            pair.send(0, torch.ones(1))
            receive(pair.inbox, 0, seconds=20)
        wait_for_line(caplog, attack.outcome)


@drives(Attack.NEWCOMERS_OPENING_OVERHEARD)
def test_a_newcomers_opening_serves_once(attack: Attack, caplog: pytest.LogCaptureFixture) -> None:
    opening = NewcomerEnd(SECRET).opening()
    with node(Desk(b"document", {}, 6, range(3))) as links:
        for is_first in (True, False):
            with socket.create_connection(("127.0.0.1", links.listeners.stream_port), 60) as connection:
                connection.sendall(opening)
                assert bool(connection.recv(1)) == is_first
        wait_for_line(caplog, attack.outcome)


@drives(Attack.STRANGERS_AGAIN)
def test_strangers_who_come_again_do_not_keep_a_peer_out(
    attack: Attack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Of 5 s, in which nothing would happen.
    monkeypatch.setattr(streams, "INTRODUCTION_SECONDS", 0.2)
    with open_pair() as pair:
        regulars = Regulars(pair)
        with regulars:
            assert regulars.came_again.wait(60)
            pair.sender.connect([1])
            for number in range(3):
                pair.receiver.loop.call_soon_threadsafe(cut_all, pair)
                pair.send(number, torch.ones(1))
                receive(pair.inbox, number, seconds=20)
        wait_for_line(caplog, attack.outcome)


@drives(Attack.SILENT_STRANGERS)
def test_strangers_who_came_first_do_not_keep_a_peer_out(attack: Attack) -> None:
    with open_pair() as pair:
        address = pair.receiver.listeners.streams.getsockname()
        strangers = [socket.create_connection(address) for _ in range(200)]
        pair.sender.connect([1])
        pair.send(0, torch.ones(1))
        receive(pair.inbox, 0)
        for stranger in strangers:
            stranger.close()


@drives(Attack.LOG_FLOODED)
def test_strangers_do_not_fill_the_log(attack: Attack, caplog: pytest.LogCaptureFixture) -> None:
    with open_pair() as pair:
        pair.sender.connect([1])
        address = pair.receiver.listeners.streams.getsockname()
        with caplog.at_level(logging.WARNING), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            for _ in range(300):
                with socket.create_connection(address) as stranger:
                    stranger.sendall(b"x" * 1000)
                datagrams.sendto(b"y" * 100, pair.receiver.listeners.address)
            pair.send(0, torch.ones(1))
            receive(pair.inbox, 0)
        wait_for_line(caplog, attack.outcome)
        assert len(caplog.records) <= 20


@drives(Attack.FORGED_SENDER)
def test_a_message_in_another_nodes_name_is_refused(attack: Attack) -> None:
    with open_pair() as pair:
        pair.sender.connect([1])
        pair.send(0, torch.ones(1), sender=1)
        assert wait_for_failure(pair.inbox, 30) == f"node 0 sends what this node must refuse: {attack.outcome}"


@drives(Attack.WRONG_SECRET_THERE)
def test_a_node_with_another_secret_gets_nowhere(attack: Attack, caplog: pytest.LogCaptureFixture) -> None:
    with open_pair() as pair:
        pair.sender.connect([1])
        known, limits = [pair.receiver.listeners.address], Limits(1 << 20, 1.0, 1.0)
        inbox = Inbox({}, lambda sender: 0.0)
        stranger = Links(Membership(0, 2, b"w" * 32), Listeners.bind("127.0.0.1"), known, limits, inbox)
        stranger.start()
        try:
            with pytest.raises(PeerLostError):
                stranger.connect([1])
        finally:
            stranger.close()
        wait_for_line(caplog, attack.outcome)
        pair.send(0, torch.ones(3))
        receive(pair.inbox, 0)


HELLO = (MAGIC + node_id(0) + node_id(1)).ljust(OPENING_BYTES - 32, b"0")
WORDS: dict[Attack, Callable[[random.Random], list[bytes]]] = {
    Attack.SAYS_NOTHING: lambda _: [b""],
    Attack.HALF_AN_OPENING: lambda _: [HELLO[:20]],
    Attack.OPENING_WITHOUT_TAG: lambda _: [HELLO],
    Attack.OPENING_OF_ZEROS: lambda _: [HELLO + bytes(32)],
    Attack.RANDOM_OPENING: lambda chance: [MAGIC + chance.randbytes(OPENING_BYTES)],
    Attack.BROWSER: lambda _: [b"GET / HTTP/1.1\r\n\r\n" * 20],
    Attack.HUGE_LENGTH: lambda _: [(2**255).to_bytes(32, "big") * 8],
    Attack.MORE_THAN_AN_OPENING: lambda _: [HELLO + bytes(32) + b"\xff" * 100],
    Attack.RANDOM_BYTES: lambda chance: [chance.randbytes(chance.randrange(400)) for _ in range(150)],
}


@drives(*WORDS)
def test_hostile_bytes_on_tcp_and_udp_change_nothing(attack: Attack, caplog: pytest.LogCaptureFixture) -> None:
    assert {*WORDS} <= {*Attack.at(Layer.STRANGER)}
    with open_pair() as pair:
        pair.sender.connect([1])
        address = pair.receiver.listeners.streams.getsockname()
        opened = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            for number, words in enumerate(WORDS[attack](random.Random(0))):
                opened.append(socket.create_connection(address, timeout=5))
                with contextlib.suppress(OSError):
                    opened[-1].sendall(words)
                if number % 2:
                    opened[-1].close()
                datagrams.sendto(words[:1000], pair.receiver.listeners.address)
        for number in range(MESSAGES):
            pair.send(number, torch.full((4,), float(number)))
        for number in range(MESSAGES):
            assert receive(pair.inbox, number)[1][0].item() == number
        assert set(pair.receiver.streams.neighbours) == {node_id(0)}
        wait_for_line(caplog, attack.outcome)
        for connection in opened:
            connection.close()
