"""Nodes are reached by IPv6, and behind forwarded ports, at an address that is not what they bound."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from deccom.peers.peer import Peer
from hypothesis import example, given
from hypothesis import strategies as st

from skippipe.transport.addresses import (
    ADDRESS_NUMBERS,
    Address,
    Neighbourhood,
    address_numbers,
    address_of_numbers,
    let_deccom_write_ipv6,
    network_of,
    pack_address,
    shown_address,
    unpack_address,
)
from skippipe.transport.inbox import Inbox
from skippipe.transport.links import Links
from skippipe.transport.membership import Limits, Listeners, Membership
from skippipe.transport.message import Header, MalformedMessageError, MessageKind

SECRET = b"s" * 32
LIMITS = Limits(1 << 20, 20.0, 10.0)
PUBLIC = "127.0.0.2"


@given(st.ip_addresses(), st.integers(0, 65535))
def test_addresses_survive_the_wire(host: object, port: int) -> None:
    address = str(host), port
    again = unpack_address(pack_address(address))
    mapped = getattr(host, "ipv4_mapped", None)
    assert again == ((str(mapped), port) if mapped else address)


@given(st.ip_addresses(), st.integers(0, 65535), st.integers(0, 65535))
def test_addresses_survive_as_numbers_of_a_table(host: object, port: int, stream_port: int) -> None:
    numbers = address_numbers((str(host), port), stream_port)
    assert len(numbers) == ADDRESS_NUMBERS
    assert address_of_numbers(numbers) == (unpack_address(pack_address((str(host), port))), stream_port)


@given(st.lists(st.floats(), max_size=ADDRESS_NUMBERS + 1))
@example([float("nan")] * ADDRESS_NUMBERS)
@example([0.5] * ADDRESS_NUMBERS)
@example([-1.0] * ADDRESS_NUMBERS)
@example([2.0**40] * ADDRESS_NUMBERS)
def test_other_numbers_are_no_address(numbers: list[float]) -> None:
    if len(numbers) != ADDRESS_NUMBERS or not all(number.is_integer() and 0 <= number < 2**40 for number in numbers):
        with pytest.raises(MalformedMessageError):
            address_of_numbers(numbers)


@given(st.ip_addresses(v=6))
def test_deccom_writes_peers_of_ipv6_too(host: object) -> None:
    let_deccom_write_ipv6()
    peer = Peer((str(host), 4000), pub_key="skippipe-node-7", tcp=4001)
    again, length = Peer.from_bytes(bytes(peer) + b"more")
    assert length == len(bytes(peer))
    assert (again.id_node, again.addr[1], again.tcp) == (peer.id_node, 4000, 4001)
    assert pack_address(again.addr) == pack_address(peer.addr)


def test_a_stranger_has_one_ipv4_address_and_many_of_ipv6() -> None:
    assert network_of("10.0.0.1") != network_of("10.0.0.2")
    assert network_of("fd00:0:0:1::1") == network_of("fd00:0:0:1:ffff::2") != network_of("fd00:0:0:2::1")
    # As a socket that listens on all IPv6 addresses shows who connects by IPv4.
    assert network_of("::ffff:10.0.0.1") != network_of("::ffff:10.0.0.2")
    assert network_of("fe80::1%1") == network_of("fe80::2%1")


def test_addresses_are_shown_as_users_write_them() -> None:
    assert shown_address(("10.0.0.1", 4000)) == "10.0.0.1:4000"
    assert shown_address(("fd00::1", 4000)) == "[fd00::1]:4000"


class Router:
    """A router that forwards a port of PUBLIC to a node, and lets every datagram come from a port of its own."""

    def __init__(self, target: Address) -> None:
        self.target = target
        self.connections = 0
        self.streams = socket.create_server((PUBLIC, 0))
        self.port = int(self.streams.getsockname()[1])
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagrams.bind((PUBLIC, self.port))
        self.out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.open: list[socket.socket] = [self.streams, self.datagrams, self.out]
        for work in (self.pass_datagrams, self.accept):
            threading.Thread(target=work, daemon=True).start()

    def pass_datagrams(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.datagrams.recv(1 << 16):
                self.out.sendto(data, self.target)

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.streams.accept()
                self.connections += 1
                server = socket.create_connection(self.target)
                self.open += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self.pump, args=ends, daemon=True).start()

    def pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for one in self.open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@contextlib.contextmanager
def ring(listeners: list[Listeners], near: dict[Address, Address]) -> Iterator[list[Links]]:
    """Nodes of which each sends to the next; all but the first are on one machine, and know of each other `near`."""
    count = len(listeners)
    made: list[Links] = []
    for node, own in enumerate(listeners):
        inbox = Inbox({(MessageKind.ACTIVATION, 0): (node - 1) % count}, lambda sender: 0.0)
        bootstrap = [listeners[0].address]
        membership = Membership(node, count, SECRET)
        made.append(Links(membership, own, bootstrap, LIMITS, inbox, neighbourhood=Neighbourhood(near if node else {})))
        made[node].start()
    try:
        yield made
    finally:
        for links in made:
            links.close()


def send_around(nodes: list[Links]) -> None:
    """Every node sends to the next, which gets it."""
    for node, links in enumerate(nodes):
        after = (node + 1) % len(nodes)
        links.connect([after])
        links.send(after, Header(MessageKind.ACTIVATION, 0, 0, node, 0.0), torch.full((4,), float(node)))
    for node, links in enumerate(nodes):
        _, tensor = links.inbox.take((MessageKind.ACTIVATION, 0, 0))
        assert tensor.tolist() == [float((node - 1) % len(nodes))] * 4


def test_nodes_find_each_other_though_nobody_is_left_to_ask() -> None:
    listeners = [Listeners.bind("127.0.0.1") for _ in range(3)]
    with ring(listeners, {}) as nodes:
        places = {node: (own.address, own.stream_port) for node, own in enumerate(listeners)}
        for node in nodes[1:]:
            node.learn(places)
        nodes[0].close()
        nodes[1].connect([2])


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_nodes_meet_over_ipv6() -> None:
    with ring([Listeners.bind("::1") for _ in range(3)], {}) as nodes:
        send_around(nodes)


def bind_one_port(advertised: Address | None = None) -> Listeners:
    """Listeners that share a port, as with peers.first_port."""
    while True:
        with contextlib.suppress(OSError):
            return Listeners.bind("127.0.0.1", random.randrange(20000, 30000), advertised)


@pytest.mark.parametrize("near", [True, False], ids=["straight to neighbours", "through the router"])
def test_nodes_behind_forwarded_ports_are_reached_at_their_public_address(near: bool) -> None:
    first, *bound = (bind_one_port() for _ in range(3))
    routers = [Router(own.bound) for own in bound]
    behind = [replace(own, advertised=(PUBLIC, router.port)) for own, router in zip(bound, routers, strict=True)]
    try:
        with ring([first, *behind], {own.address: own.bound for own in behind} if near else {}) as nodes:
            send_around(nodes)
            # Each is entered once by its predecessor; the one between the two behind the router need not pass it.
            assert [router.connections for router in routers] == ([1, 0] if near else [1, 1])
    finally:
        for router in routers:
            router.close()
