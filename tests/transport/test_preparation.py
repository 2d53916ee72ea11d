"""Before the first iteration is known: questions and files come at once, what faster nodes send waits for its inbox."""

from __future__ import annotations

import threading

import pytest
import torch

from skippipe.transport.collective import Identity
from skippipe.transport.inbox import Inbox, PeerLostError
from skippipe.transport.message import Header, MessageKind
from skippipe.transport.preparation import Preparation
from skippipe.transport.sharing import Sharing, Tree
from tests.transport.link_pair import ACTIVATION, Pair, open_pair, receive

SHARED = Identity(0, 8)


def prepare(pair: Pair) -> Preparation:
    """Let the receiver of a pair wait for its first iteration."""
    inbox = pair.receiver.inbox
    preparation = Preparation(inbox.clock, {SHARED.sequence: Tree((0, 1), 1).expected(3)})
    pair.receiver.inbox = preparation
    pair.sender.inbox = Preparation(inbox.clock, {SHARED.sequence: Tree((0, 1), 0).expected(3)})
    pair.sender.connect([1])
    pair.receiver.connect([0])
    return preparation


def ask(pair: Pair, number: int) -> None:
    pair.sender.send(1, Header(MessageKind.ASK, 0, number, 0, 0.0, 5), torch.zeros(1, dtype=torch.uint8))


def watch(inbox: Inbox) -> threading.Timer:
    """Fail an inbox in which nothing comes."""
    timer = threading.Timer(60, inbox.fail, ["nothing came"])
    timer.start()
    return timer


def test_what_faster_nodes_send_waits_and_goes_to_the_inbox_that_follows() -> None:
    with open_pair() as pair:
        preparation = prepare(pair)
        timer = watch(preparation)
        for number in range(3):
            pair.send(number, torch.full((2,), float(number)), iteration=17)
        ask(pair, 9)
        assert preparation.take_parcel()[0][:3] == (MessageKind.ASK, 0, 9)
        thread = threading.Thread(target=pair.sender.run, args=(Sharing(Tree((0, 1), 0), [1.0, 2.0, 3.0]), SHARED))
        thread.start()
        sharing = Sharing(Tree((0, 1), 1), [4.0, 5.0, 6.0])
        pair.receiver.run(sharing, SHARED)
        thread.join()
        assert sharing.table.tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
        timer.cancel()
        following = Inbox({(ACTIVATION, number): 0 for number in range(5)}, lambda sender: 0.0, iteration=17)
        preparation.give_way(pair.receiver, following)
        pair.send(3, torch.full((2,), 3.0), iteration=17)
        timer = watch(following)
        for number in range(4):
            assert following.take((ACTIVATION, 17, number))[1].tolist() == [number] * 2
        timer.cancel()


def test_a_collective_that_begins_does_not_hold_up_questions() -> None:
    with open_pair() as pair:
        preparation = prepare(pair)
        timer = watch(preparation)
        ask(pair, 1)
        assert preparation.take_next(SHARED)[0].microbatch == 1
        sharing = Sharing(Tree((0, 1), 1), [4.0, 5.0, 6.0])
        pair.receiver.post(SHARED, sharing.begin(), 0.0)
        pair.sender.run(Sharing(Tree((0, 1), 0), [1.0, 2.0, 3.0]), SHARED)
        header, table = preparation.take_next(SHARED)
        assert header.kind is MessageKind.TABLE
        assert table.shape == (2, 3)
        timer.cancel()


def test_whoever_waits_hears_of_a_loss_and_so_does_the_inbox_that_follows() -> None:
    with open_pair() as pair:
        preparation = prepare(pair)
        preparation.lose(0, "node 0 is gone")
        for wait in (preparation.take_parcel, lambda: preparation.take_next(SHARED)):
            with pytest.raises(PeerLostError, match="node 0 is gone"):
                wait()
        following = Inbox({(ACTIVATION, 0): 0}, lambda sender: 0.0)
        preparation.give_way(pair.receiver, following)
        with pytest.raises(PeerLostError, match="node 0 is gone"):
            receive(following, 0)
