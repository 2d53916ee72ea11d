"""An evaluation's mailbox: a lost peer stops only who waits for it, broken links stop everyone."""

from __future__ import annotations

import pytest
import torch

from skippipe.runtime.evaluator import Mailbox
from skippipe.transport.inbox import LinksBrokenError, PeerLostError
from skippipe.transport.message import Header, MessageKind


def test_a_lost_peer_is_not_waited_for_and_others_are() -> None:
    mailbox = Mailbox([1, 2])
    mailbox.lose(1, "gone")
    mailbox.put(Header(MessageKind.ACTIVATION, 0, 0, 2, 0.0), torch.ones(3))
    with pytest.raises(PeerLostError, match="node 1 can't be reached"):
        mailbox.take_from(1)
    assert mailbox.take_from(2)[1].tolist() == [1, 1, 1]


def test_links_that_break_down_end_all_waiting() -> None:
    mailbox = Mailbox([1])
    mailbox.fail("the network thread failed", LinksBrokenError)
    with pytest.raises(LinksBrokenError, match="the network thread failed"):
        mailbox.take_from(1)
