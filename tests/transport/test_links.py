"""Links over real DecCom sockets: found, connected, delivered in order and once, across breaks, until a peer ends."""

from __future__ import annotations

import gc
import random
import socket
import threading
import time
import weakref
from collections.abc import Iterator

import pytest
import torch

from skippipe.transport import conversation
from skippipe.transport.identity import node_id
from skippipe.transport.inbox import Inbox, PeerLostError
from skippipe.transport.links import Links
from skippipe.transport.membership import Limits, Listeners, Membership
from skippipe.transport.message import Header, MessageKind
from tests.cases import drives
from tests.faults import Fault
from tests.transport.link_pair import wait_for_line

SECRET = b"s" * 32
MESSAGES = 200
LIMITS = Limits(1 << 20, 10.0, 5.0)
Pair = tuple[Links, Links, Inbox]


def make_node(
    node: int,
    nodes: int,
    listeners: Listeners,
    bootstrap: list[tuple[str, int]],
    secret: bytes | None = SECRET,
    limits: Limits = LIMITS,
) -> tuple[Links, Inbox]:
    senders = {(MessageKind.ACTIVATION, i): (node - 1) % nodes for i in range(MESSAGES)}
    inbox = Inbox(senders, lambda sender: 0.0)
    links = Links(Membership(node, nodes, secret), listeners, bootstrap, limits, inbox)
    links.start()
    return links, inbox


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Node 0 that sends and node 1 that receives, with node 1's inbox."""
    listeners = [Listeners.bind("127.0.0.1") for _ in range(2)]
    bootstrap = [listeners[0].address]
    sender, _ = make_node(0, 2, listeners[0], bootstrap)
    receiver, inbox = make_node(1, 2, listeners[1], bootstrap)
    sender.connect([1])
    yield sender, receiver, inbox
    sender.close()
    receiver.close()


def send(links: Links, number: int, tensor: torch.Tensor) -> None:
    links.send(1, Header(MessageKind.ACTIVATION, 0, number, 0, 0.0), tensor)


def test_a_node_that_leaves_acknowledges_first_what_it_has_got(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "ACKNOWLEDGE_SECONDS", 1e6)
    sender, receiver, inbox = pair
    send(sender, 0, torch.ones(3))
    inbox.take((MessageKind.ACTIVATION, 0, 0))
    assert sender.senders[1].unacknowledged
    receiver.close()
    sender.drain(60.0)
    assert not sender.senders[1].unacknowledged


def receive(inbox: Inbox, number: int) -> torch.Tensor:
    watchdog = threading.Timer(20, inbox.fail, ["nothing came"])
    watchdog.start()
    try:
        return inbox.take((MessageKind.ACTIVATION, 0, number))[1]
    finally:
        watchdog.cancel()


@pytest.mark.parametrize("secret", [SECRET, None], ids=["authenticated", "open"])
def test_twenty_nodes_find_each_other_and_deliver(secret: bytes | None) -> None:
    nodes = 20
    listeners = [Listeners.bind("127.0.0.1") for _ in range(nodes)]
    bootstrap = [listener.address for listener in listeners[:3]]
    made = [make_node(i, nodes, listeners[i], bootstrap, secret) for i in range(nodes)]
    try:
        for node, (links, _) in enumerate(made):
            links.connect([(node + 1) % nodes])
        for node, (links, _) in enumerate(made):
            tensor = torch.full((3,), float(node))
            links.send((node + 1) % nodes, Header(MessageKind.ACTIVATION, 0, 0, node, 0.0), tensor)
        for node, (_, inbox) in enumerate(made):
            assert receive(inbox, 0)[0].item() == (node - 1) % nodes
    finally:
        for links, _ in made:
            links.close()
    assert all(sender.task.done() for links, _ in made for sender in links.senders.values())


def cut(links: Links) -> None:
    """Cut the connections from all peers (in the network's thread)."""
    for neighbour in links.streams.neighbours.values():
        if neighbour.reader is not None and neighbour.reader.connection.fileno() >= 0:
            neighbour.reader.connection.shutdown(socket.SHUT_RDWR)


@drives(Fault.CUT_AGAIN_AND_AGAIN)
def test_a_connection_that_breaks_again_and_again_loses_and_repeats_nothing(
    fault: Fault, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    sender, receiver, inbox = pair
    tensors = [torch.randn(random.Random(i).choice([10, 50_000])) for i in range(MESSAGES)]
    for number, tensor in enumerate(tensors):
        send(sender, number, tensor)
        if number % 20 == 10:
            # Cut at the receiver in the network's thread, in the middle of whatever is on its way.
            receiver.loop.call_soon_threadsafe(cut, receiver)
            time.sleep(0.01)
    for number, tensor in enumerate(tensors):
        assert torch.equal(receive(inbox, number), tensor)
    assert receiver.streams.neighbours[node_id(0)].incoming.delivered == MESSAGES
    wait_for_line(caplog, fault.line)


def test_a_connection_that_broke_keeps_no_buffer_until_garbage_is_collected(pair: Pair) -> None:
    sender, receiver, inbox = pair
    send(sender, 0, torch.ones(50_000))
    receive(inbox, 0)
    neighbour = receiver.streams.neighbours[node_id(0)]
    first = neighbour.reader
    assert first is not None
    buffer = weakref.ref(first.stream.staging)
    gc.disable()
    try:
        receiver.loop.call_soon_threadsafe(cut, receiver)
        while neighbour.reader in (None, first):
            time.sleep(0.01)
        assert buffer() is None
    finally:
        gc.enable()


@drives(Fault.PEER_GONE)
def test_a_peer_that_is_gone_is_reported_by_name_after_the_deadline(fault: Fault) -> None:
    listeners = [Listeners.bind("127.0.0.1") for _ in range(2)]
    bootstrap = [listeners[0].address]
    limits = Limits(1 << 20, 10.0, 1.0)
    sender, sender_inbox = make_node(0, 2, listeners[0], bootstrap, limits=limits)
    receiver, _ = make_node(1, 2, listeners[1], bootstrap, limits=limits)
    try:
        sender.connect([1])
        receiver.close()
        with pytest.raises(PeerLostError, match=fault.line):
            sender_inbox.take((MessageKind.ACTIVATION, 0, 0))
    finally:
        sender.close()


@drives(Fault.PEER_NEVER_COMES)
def test_a_peer_that_never_comes_is_reported_by_name(fault: Fault) -> None:
    listeners = Listeners.bind("127.0.0.1")
    links, _ = make_node(0, 2, listeners, [], limits=Limits(1 << 20, 0.5, 0.5))
    try:
        with pytest.raises(PeerLostError, match=fault.line):
            links.connect([1])
    finally:
        links.close()


@drives(Fault.PEERS_PEER_LOST)
def test_word_of_a_lost_node_goes_all_the_way_round(fault: Fault) -> None:
    listeners = [Listeners.bind("127.0.0.1") for _ in range(3)]
    made = [make_node(i, 4, listeners[i], [listeners[0].address]) for i in range(3)]
    try:
        for node, (links, _) in enumerate(made):
            links.connect([(node + 1) % 3])
        made[0][0].loop.call_soon_threadsafe(made[0][0].losses.tell, 3)
        for teller, (_, inbox) in enumerate((made[1], made[2])):
            with pytest.raises(PeerLostError, match=f"{fault.line} {teller}"):
                receive(inbox, 0)
    finally:
        for links, _ in made:
            links.close()
