"""A node is lost and another process of it comes: links to and from it begin again, with what is meant for it."""

from __future__ import annotations

import queue

import torch

from skippipe.transport.inbox import Inbox
from skippipe.transport.links import Links
from skippipe.transport.membership import Limits, Listeners, Membership
from skippipe.transport.message import Header
from tests.transport.link_pair import ACTIVATION, receive

LIMITS = Limits(1 << 20, 10.0, 5.0)


def open_node(node: int, listeners: Listeners, first: Listeners, joins: bool = False) -> Links:
    inbox = Inbox({(ACTIVATION, number): 1 - node for number in range(10)}, lambda sender: 0.0)
    links = Links(Membership(node, 2, b"s" * 32), listeners, [first.address], LIMITS, inbox, joins=joins)
    links.start()
    return links


def send(links: Links, number: int) -> None:
    links.send(1 - links.node, Header(ACTIVATION, 0, number, links.node, 0.0), torch.full((3,), float(number)))


def check(links: Links, number: int) -> None:
    assert receive(links.inbox, number, seconds=20)[1].tolist() == [number] * 3


def test_another_process_gets_only_what_was_sent_after_the_loss() -> None:
    own = [Listeners.bind("127.0.0.1") for _ in range(2)]
    stayed, lost = (open_node(node, own[node], own[0]) for node in range(2))
    address, stream_port = own[1].bound, own[1].stream_port
    for number in range(3):
        send(stayed, number)
        send(lost, number)
        check(lost, number)
        check(stayed, number)
    lost.close()
    send(stayed, 3)
    stayed.loop.call_soon_threadsafe(stayed.forget, 1)
    again = Listeners.bind(address[0], address[1], None, stream_port)
    back = open_node(1, again, own[0], joins=True)
    for number in range(4, 8):
        send(stayed, number)
        send(back, number)
    for number in range(4, 8):
        check(back, number)
        check(stayed, number)
    assert not back.inbox.messages
    stayed.drain(10.0)
    assert not stayed.senders[1].unacknowledged
    for links in (stayed, back):
        links.close()


def test_one_that_comes_before_the_other_is_missed_gets_in_later() -> None:
    own = [Listeners.bind("127.0.0.1") for _ in range(2)]
    stayed, lost = (open_node(node, own[node], own[0]) for node in range(2))
    address, stream_port = own[1].bound, own[1].stream_port
    send(lost, 0)
    check(stayed, 0)
    lost.close()
    back = open_node(1, Listeners.bind(address[0], address[1], None, stream_port), own[0], joins=True)
    refused: queue.Queue[str] = queue.Queue()
    back.losses.lose = lambda node, reason: refused.put(reason)
    send(back, 1)
    assert "part of the run already" in refused.get(timeout=30)
    stayed.loop.call_soon_threadsafe(stayed.forget, 1)
    send(back, 2)
    for number in (1, 2):
        check(stayed, number)
    for links in (stayed, back):
        links.close()


def test_a_peer_that_was_given_up_is_looked_for_again_when_it_is_no_longer_suspected() -> None:
    own = [Listeners.bind("127.0.0.1") for _ in range(2)]
    stayed = open_node(0, own[0], own[0])
    given_up: queue.Queue[int] = queue.Queue()
    stayed.losses.lose = lambda node, reason: given_up.put(node)
    stayed.around.trains, stayed.around.silence_seconds = True, 0.5
    send(stayed, 0)
    assert given_up.get(timeout=30) == 1
    late = open_node(1, own[1], own[0])
    stayed.loop.call_soon_threadsafe(stayed.try_again, 1)
    check(late, 0)
    for links in (stayed, late):
        links.close()
