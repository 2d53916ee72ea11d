"""The inbox takes what the schedule expects, once, from whom it expects it, and not before its hop is over."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from skippipe.transport.clocks import Clock
from skippipe.transport.collective import Identity
from skippipe.transport.inbox import Inbox, PeerLostError, ViewChangedError
from skippipe.transport.message import Header, MalformedMessageError, MessageKind
from tests.attacks import Attack
from tests.cases import Layer, drives

CLOCK = Clock()
ACTIVATION, GRADIENT = MessageKind.ACTIVATION, MessageKind.GRADIENT


def inbox(delay_s: float = 0.0) -> Inbox:
    return Inbox({(ACTIVATION, 0): 7, (GRADIENT, 0): 8}, lambda sender: delay_s)


def header(kind: MessageKind = ACTIVATION, iteration: int = 0, microbatch: int = 0, sender: int = 7) -> Header:
    return Header(kind, iteration, microbatch, sender, CLOCK.wire(CLOCK.now()))


WRONG = {
    Attack.MESSAGE_OF_ANOTHER: header(sender=8),
    Attack.MESSAGE_UNKNOWN: header(microbatch=1),
    Attack.MESSAGE_KIND: header(kind=GRADIENT, sender=7),
    Attack.MESSAGE_TOO_EARLY: header(iteration=2),
}


@drives(*Attack.at(Layer.MESSAGE))
def test_what_the_schedule_does_not_expect_is_refused(attack: Attack) -> None:
    with pytest.raises(MalformedMessageError, match=attack.outcome):
        inbox().put(WRONG[attack], torch.zeros(1))


def test_a_message_may_leave_later_but_no_later_than_it_can_have_waited() -> None:
    box = Inbox({(ACTIVATION, 0): 7, (ACTIVATION, 1): 7}, lambda sender: 0.1, queue_s=100.0)
    begin = time.monotonic()
    for microbatch, late_s in ((0, 50.0), (1, 1e9)):
        box.put(Header(ACTIVATION, 0, microbatch, 7, CLOCK.wire(time.monotonic()) + late_s), torch.zeros(1))
    end = time.monotonic()
    readies = [box.messages[ACTIVATION, 0, microbatch][0] for microbatch in (0, 1)]
    for ready, expected in zip(readies, (50.1, 100.1), strict=True):
        assert begin + expected - 1 < ready < end + expected + 1


def test_a_message_is_delivered_once() -> None:
    box = inbox()
    box.put(header(), torch.zeros(1))
    with pytest.raises(MalformedMessageError):
        box.put(header(), torch.zeros(1))
    box.take((ACTIVATION, 0, 0))
    with pytest.raises(MalformedMessageError):
        box.put(header(), torch.zeros(1))
    box.next_iteration(1)
    with pytest.raises(MalformedMessageError):
        box.put(header(), torch.zeros(1))
    box.put(header(iteration=1), torch.zeros(1))


def test_an_early_message_of_the_next_iteration_waits() -> None:
    box = inbox()
    box.put(header(iteration=1), torch.ones(1))
    box.put(header(), torch.zeros(1))
    assert box.take((ACTIVATION, 0, 0))[1].item() == 0
    box.next_iteration(1)
    assert box.take((ACTIVATION, 1, 0))[1].item() == 1


def test_the_hop_counts_from_the_send() -> None:
    box = inbox(delay_s=100.0)
    sent_at = CLOCK.wire(CLOCK.now()) - 40.0
    box.put(Header(ACTIVATION, 0, 0, 7, sent_at), torch.zeros(1))
    ready, _ = box.take((ACTIVATION, 0, 0))
    assert 30.0 < ready - time.monotonic() < 61.0


def test_a_sender_with_a_fast_clock_can_not_delay_more_than_the_hop() -> None:
    box = inbox(delay_s=0.5)
    box.put(Header(ACTIVATION, 0, 0, 7, CLOCK.wire(CLOCK.now()) + 1000), torch.zeros(1))
    ready, _ = box.take((ACTIVATION, 0, 0))
    assert ready <= time.monotonic() + 0.5


def test_a_lost_peer_wakes_who_waits() -> None:
    box = inbox()
    threading.Timer(0.1, box.fail, ["node 7 can't be reached"]).start()
    with pytest.raises(PeerLostError, match="node 7"):
        box.take((ACTIVATION, 0, 0))


def test_a_decided_view_interrupts_who_waits_until_it_is_taken_up() -> None:
    box = inbox()
    box.put(header(), torch.zeros(1))
    threading.Timer(0.1, box.change).start()
    with pytest.raises(ViewChangedError):
        box.take((GRADIENT, 0, 0))
    with pytest.raises(ViewChangedError):
        box.take((ACTIVATION, 0, 0))
    box.take_up(1, {}, {})
    assert box.take((ACTIVATION, 0, 0))[1].item() == 0


def test_an_heir_may_send_what_the_lost_node_had_to_and_what_came_twice_is_dropped() -> None:
    box, heir = inbox(), 9
    with pytest.raises(MalformedMessageError):
        box.put(header(sender=heir), torch.ones(1))
    # It knows of the view before we do.
    box.put(header(sender=heir)._replace(view=1), torch.ones(1))
    assert not box.messages
    box.take_up(1, {(ACTIVATION, 0): heir}, {})
    box.put(header(sender=heir)._replace(view=1), torch.zeros(1))
    box.put(header(), torch.zeros(1))
    assert box.take((ACTIVATION, 0, 0))[1].item() == 1
    box.put(header(sender=heir)._replace(view=1), torch.zeros(1))
    box.next_iteration(1)
    box.put(header(sender=heir)._replace(view=1), torch.zeros(1))
    assert not box.messages
    with pytest.raises(MalformedMessageError):
        box.put(header(sender=5)._replace(view=1), torch.zeros(1))


def test_collectives_belong_to_a_view() -> None:
    shape = {1: {(MessageKind.SHARD, 7, 0): (3,)}}
    box = Inbox({}, lambda sender: 0.0, collectives=shape)

    def shard(view: int, value: float) -> tuple[Header, torch.Tensor]:
        return Header(MessageKind.SHARD, 0, 1, 7, 0.0, 0, view), torch.full((3,), value)

    box.put(*shard(0, 1.0))
    box.put(*shard(1, 2.0))
    box.take_up(1, {}, shape)
    box.put(*shard(0, 3.0))
    assert box.take_arrived(Identity(0, 1, 1))[1][0].item() == 2.0
    assert not any(box.arrived.values())
    with pytest.raises(MalformedMessageError):
        box.put(*shard(1, 4.0))


def test_what_a_passed_view_allowed_is_dropped_when_it_comes_late() -> None:
    box = inbox()
    box.take_up(2, {}, {})
    box.put(header(sender=9)._replace(view=1), torch.zeros(1))
    assert not box.messages
    assert not box.early


def test_who_joins_takes_nothing_before_a_view() -> None:
    box = Inbox({}, lambda sender: 0.0, view=-1)
    for view, iteration in ((0, 3), (2, 7), (2, 8)):
        box.put(header(iteration=iteration)._replace(view=view), torch.full((1,), float(iteration)))
    assert not box.messages
    box.iteration = 7
    box.take_up(2, {(ACTIVATION, 0): 7}, {})
    assert [box.take((ACTIVATION, iteration, 0))[1].item() for iteration in (7, 8)] == [7, 8]
    assert not box.messages


def in_view(kind: MessageKind, view: int, iteration: int = 0, sender: int = 7) -> Header:
    return Header(kind, iteration, 0, sender, CLOCK.wire(CLOCK.now()), view=view)


def test_what_is_sent_in_a_later_view_waits_for_it_even_from_a_known_sender() -> None:
    box = inbox()
    box.put(in_view(ACTIVATION, 1), torch.ones(1))
    assert not box.messages
    box.take_up(1, {(ACTIVATION, 0): 7}, {})
    assert box.take((ACTIVATION, 0, 0))[1] == torch.ones(1)


def test_of_an_iteration_that_is_redone_nothing_of_older_views_counts() -> None:
    box = inbox()
    box.next_iteration(3)
    for kind, sender in ((ACTIVATION, 7), (GRADIENT, 8)):
        box.put(in_view(kind, 0, 3, sender), torch.zeros(1))
    box.take((ACTIVATION, 3, 0))
    # Somebody is in the new view already, and sends again what came before.
    box.put(in_view(ACTIVATION, 2, 3), torch.ones(1))
    box.take_up(2, {(ACTIVATION, 0): 7, (GRADIENT, 0): 9}, {}, redone=(3, 2))
    assert list(box.messages) == [(ACTIVATION, 3, 0)]
    for old in (0, 1):
        box.put(in_view(GRADIENT, old, 3, 8), torch.zeros(1))
    assert list(box.messages) == [(ACTIVATION, 3, 0)]
    assert box.take((ACTIVATION, 3, 0))[1] == torch.ones(1)
    with pytest.raises(MalformedMessageError):
        box.put(in_view(GRADIENT, 2, 3, 8), torch.zeros(1))
    box.put(in_view(GRADIENT, 2, 3, 9), torch.ones(1))
    assert box.take((GRADIENT, 3, 0))[1] == torch.ones(1)


class Watched(threading.Condition):
    """Tells that somebody has come to it, who perhaps must wait."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted = threading.Event()

    def __enter__(self) -> bool:
        self.wanted.set()
        return super().__enter__()


def test_a_message_that_comes_while_a_view_is_taken_up_is_one_of_the_view_before() -> None:
    box, collectives = inbox(), {0: {(MessageKind.SHARD, 7, 0): (1,)}}
    box.collectives = collectives
    box.changed = lock = Watched()
    for late in (header(), header(MessageKind.SHARD)):
        lock.wanted.clear()
        arrives = threading.Thread(target=box.put, args=(late, torch.zeros(1)))
        with lock:
            lock.wanted.clear()
            arrives.start()
            assert lock.wanted.wait(60)
            box.take_up(box.view + 1, {(ACTIVATION, 0): 7}, collectives, redone=(0, box.view + 1))
        arrives.join()
        assert not box.messages
        assert not box.arrived
