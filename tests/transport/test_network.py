"""A node's network thread: what fails in it by a mistake is told to whoever waits, and it ends with its links."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch

from skippipe.errors import UserError
from skippipe.transport.inbox import Inbox, LinksBrokenError
from skippipe.transport.links import Links
from skippipe.transport.membership import Listeners, Membership
from skippipe.transport.message import Header
from tests.cases import drives
from tests.faults import Fault
from tests.transport.link_pair import ACTIVATION, LIMITS, open_pair, receive, wait_for_failure


@drives(Fault.CALLBACK_RAISES)
def test_a_callback_that_raises_ends_whoever_waits(fault: Fault) -> None:
    with open_pair() as pair:
        # There is no such node.
        pair.sender.send(7, Header(ACTIVATION, 0, 0, 0, 0.0), torch.ones(1))
        with pytest.raises(LinksBrokenError, match=fault.line):
            receive(pair.sender.inbox, 0)
        with pytest.raises(LinksBrokenError, match=fault.line):
            pair.sender.connect([1])


@drives(Fault.SENDING_RAISES)
def test_sending_that_ends_by_a_mistake_of_ours_is_a_lost_peer(fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    with open_pair() as pair:
        pair.sender.connect([1])
        sender = pair.sender.senders[1]
        # A frame that nobody can have queued, in the place of one.
        pair.sender.loop.call_soon_threadsafe(sender.waiting.append, None)
        pair.sender.loop.call_soon_threadsafe(sender.changed.set)
        assert fault.line in str(wait_for_failure(pair.sender.inbox, 30))
        assert "Traceback" in caplog.text


@drives(Fault.TOO_BUSY)
def test_a_machine_too_busy_to_open_links_is_told_so_in_one_line(fault: Fault) -> None:
    listeners = Listeners.bind("127.0.0.1")
    limits = replace(LIMITS, connect_seconds=0.1)
    links = Links(Membership(3, 4, None), listeners, [], limits, Inbox({}, lambda sender: 0.0))
    busy = threading.Event()
    links.loop.call_soon(busy.wait)
    with pytest.raises(UserError, match=f"^{fault.line}"):
        links.start()
    busy.set()
    links.close()


def test_all_threads_end() -> None:
    before = threading.active_count()
    with open_pair() as pair:
        pair.sender.connect([1])
    assert threading.active_count() <= before
