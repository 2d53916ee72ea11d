"""Links when things go wrong: what flows goes on, what can't go on ends at both ends with the reason."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
import threading
import time
from collections import deque
from dataclasses import replace
from enum import Enum

import pytest
import torch
from deccom.peers.peer import Peer

from skippipe.errors import UserError
from skippipe.transport.clocks import Clock
from skippipe.transport.handshake import OPENING_BYTES
from skippipe.transport.inbox import Inbox, LinksBrokenError, PeerLostError
from skippipe.transport.links import Links
from skippipe.transport.membership import Listeners, Membership
from skippipe.transport.message import Header
from skippipe.transport.run_identity import RunIdentity
from tests.transport.link_pair import ACTIVATION, LIMITS, Pair, Setup, Way, open_pair, receive, wait_for_failure

HOP_SECONDS = 0.5
FAR_SECONDS = 0.1
BIG = 3_000_000
"""Numbers in a message of 12 MB."""
SMALL_BIG = 40_000
"""Numbers in a message of 160 KB, which is one long record."""


class ForeignClock(Clock):
    """Another machine's clock: ahead by some seconds, more of them after a suspend."""

    def __init__(self, ahead: float) -> None:
        self.ahead = ahead
        super().__init__()
        self.identity = os.urandom(16)

    def since_boot(self) -> float:
        return super().since_boot() + self.ahead


class FlipOnce:
    """Changes one bit of the 40th piece that passes, in the middle of a frame."""

    def __init__(self) -> None:
        self.left = 40

    def __call__(self, data: bytearray) -> None:
        self.left -= 1
        if self.left == 0:
            data[len(data) // 2] ^= 1


class Fault(Enum):
    """What goes wrong between two nodes."""

    SLOW_LINK = "12 MB take four seconds, twice as long as a peer may be silent"
    VERY_SLOW_LINK = "a peer may be silent for less time than 64 KB take"
    FLIPPED_BIT = "a bit changes on the way"
    SKEWED_CLOCK = "the sender's clock is a million seconds ahead"
    SLOW_CLOCK = "the sender's clock is a thousand seconds behind"
    SUSPENDED_SENDER = "the sender's machine has slept for an hour, in a run of its own time"
    NO_DESCRIPTORS = "the receiver can't accept any more, for a while"
    SILENT_STRANGERS = "200 silent connections come before the peer"
    STRANGERS_KEEP_COMING = "silent connections come from a far peer's address all the time"
    OPENING_OVERHEARD = "somebody says a far peer's opening again and again while the peer connects again"

    def setup(self) -> Setup:
        """Nodes to which it happens."""
        skew = {Fault.SKEWED_CLOCK: 1e6, Fault.SLOW_CLOCK: -1e3, Fault.SUSPENDED_SENDER: 0.0}.get(self)
        if skew is not None:
            return Setup(clocks=(ForeignClock(skew), Clock()), hop_s=HOP_SECONDS)
        if self is Fault.SLOW_LINK:
            return Setup(limits=replace(LIMITS, silence_seconds=2.0), forth=Way(3e6))
        if self is Fault.VERY_SLOW_LINK:
            return Setup(limits=replace(LIMITS, silence_seconds=2.0), forth=Way(2e4))
        if self in (Fault.STRANGERS_KEEP_COMING, Fault.OPENING_OVERHEARD):
            return Setup(forth=Way(delay_s=FAR_SECONDS, damage=Eavesdropper()), back=Way(delay_s=FAR_SECONDS))
        return Setup(forth=Way(damage=FlipOnce())) if self is Fault.FLIPPED_BIT else Setup()


class Eavesdropper:
    """Remembers the first bytes that passed."""

    def __init__(self) -> None:
        self.overheard = b""

    def __call__(self, data: bytearray) -> None:
        self.overheard = self.overheard or bytes(data)


class Strangers:
    """Connections that come 400 times a second, and each say the same; the last ones stay open."""

    def __init__(self, pair: Pair, words: bytes) -> None:
        self.address = pair.receiver.listeners.streams.getsockname()
        self.words = words
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.come)
        self.thread.start()

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

    def end(self) -> None:
        """No more come."""
        self.ended.set()
        self.thread.join()


@pytest.mark.parametrize("fault", [Fault.STRANGERS_KEEP_COMING, Fault.OPENING_OVERHEARD])
def test_whoever_comes_does_not_keep_a_far_peer_out(fault: Fault) -> None:
    setup = fault.setup()
    assert setup.forth is not None
    ears = setup.forth.damage
    assert isinstance(ears, Eavesdropper)
    with open_pair(setup) as pair:
        if fault is Fault.OPENING_OVERHEARD:
            pair.sender.connect([1])
        strangers = Strangers(pair, ears.overheard[:OPENING_BYTES])
        try:
            if fault is Fault.OPENING_OVERHEARD:
                pair.receiver.loop.call_soon_threadsafe(cut_all, pair)
            pair.sender.connect([1])
            pair.send(0, torch.ones(1))
            receive(pair.inbox, 0, seconds=20)
        finally:
            strangers.end()


@pytest.mark.parametrize("fault", set(Fault) - {Fault.STRANGERS_KEEP_COMING, Fault.OPENING_OVERHEARD})
def test_links_go_on(fault: Fault) -> None:
    with open_pair(fault.setup()) as pair:
        strangers: list[socket.socket] = []
        if fault is Fault.SILENT_STRANGERS:
            address = pair.receiver.listeners.streams.getsockname()
            strangers = [socket.create_connection(address) for _ in range(200)]
        if fault is Fault.NO_DESCRIPTORS:
            connect_without_descriptors(pair)
        else:
            pair.sender.connect([1])
        if fault is Fault.SUSPENDED_SENDER:
            clock = pair.sender.inbox.clock
            assert isinstance(clock, ForeignClock)
            clock.ahead = 3600.0
            wait_for_new_offset(pair, 3600.0)
        big = SMALL_BIG if fault is Fault.VERY_SLOW_LINK else BIG
        tensors = [torch.randn(big if number == 1 else 5) for number in range(3)]
        sent = [pair.send(number, tensor) for number, tensor in enumerate(tensors)]
        for number, tensor in enumerate(tensors):
            ready, received = receive(pair.inbox, number)
            assert torch.equal(received, tensor)
            if fault.setup().hop_s:
                # The hop counts from the send, whatever the clocks show; a busy machine measures them less well.
                assert -0.1 < ready - sent[number] - HOP_SECONDS < 0.1 + (time.monotonic() - sent[number])
        for stranger in strangers:
            stranger.close()


def connect_without_descriptors(pair: Pair) -> None:
    """Let the receiver run out of file descriptors while somebody connects; then let the peer come."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    clients = [socket.socket() for _ in range(3)]
    used = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
    filler = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
        while True:
            try:
                filler.append(os.dup(0))
            except OSError:
                break
        for client in clients:
            client.connect(pair.receiver.listeners.streams.getsockname())
        time.sleep(0.5)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in filler:
            os.close(descriptor)
    pair.sender.connect([1])
    for client in clients:
        client.close()


def wait_for_new_offset(pair: Pair, ahead: float) -> None:
    """Wait until the receiver knows how far the sender's clock is ahead now."""
    deadline = time.monotonic() + 30
    while True:
        offsets = [neighbour.offset for neighbour in pair.receiver.streams.neighbours.values()]
        if offsets and abs(offsets[0] + ahead) < 1:
            return
        assert time.monotonic() < deadline, offsets
        time.sleep(0.05)


def lost(pair: Pair) -> list[str]:
    """Why each end gives up."""
    reasons = []
    for links in (pair.sender, pair.receiver):
        reason = wait_for_failure(links.inbox, 30)
        assert reason is not None, "nobody gave up"
        reasons.append(reason)
    return reasons


def test_a_frame_that_is_refused_twice_ends_the_run_at_both_ends_with_the_reason() -> None:
    with open_pair() as pair:
        pair.sender.connect([1])
        pair.send(0, torch.ones(1), iteration=5)
        assert lost(pair) == [
            "node 1 refuses what this node sends: iteration 5 is not 0 or the next",
            "node 0 sends what this node must refuse: iteration 5 is not 0 or the next",
        ]


def test_a_message_in_another_nodes_name_is_refused() -> None:
    with open_pair() as pair:
        pair.sender.connect([1])
        pair.send(0, torch.ones(1), sender=1)
        assert lost(pair)[1] == "node 0 sends what this node must refuse: node 0 sends as node 1"


def test_a_hung_executor_is_named_and_one_that_waits_is_not() -> None:
    limits = replace(LIMITS, silence_seconds=2.0, work_seconds=1.0)
    with open_pair(Setup(limits=limits)) as pair:
        pair.sender.work.wait("the input of F7 in iteration 3")
        pair.sender.connect([1])
        assert wait_for_failure(pair.inbox, 3.0) is None
        pair.sender.work.begin("F7 of iteration 3")
        reason = wait_for_failure(pair.inbox, 30)
        assert reason is not None
        assert reason.startswith("node 0 hangs: F7 of iteration 3 has taken")


def test_machines_that_differ_name_the_field_at_both_ends_at_once() -> None:
    runs = tuple(RunIdentity({"seed": "0", "optimizer.learning_rate": rate}) for rate in ("0.1", "0.2"))
    with open_pair(Setup(runs=runs)) as pair:  # type: ignore[arg-type]
        began = time.monotonic()
        with pytest.raises(PeerLostError, match=r"differs in: optimizer.learning_rate \(0.1 here\)"):
            pair.sender.connect([1])
        assert time.monotonic() - began < 10
        assert "optimizer.learning_rate (0.2 here)" in lost(pair)[1]


def test_a_second_launcher_of_the_same_run_is_refused_and_the_first_goes_on() -> None:
    first, second = RunIdentity({"a": "1"}, b"1" * 16), RunIdentity({"a": "1"}, b"2" * 16)
    member = RunIdentity({"a": "1"})
    with open_pair(Setup(runs=(first, member))) as pair:
        pair.sender.connect([1])
        pair.receiver.connect([0])
        assert member.run_id == b"1" * 16
        with open_pair(Setup(runs=(second, RunIdentity({"a": "1"})))) as other:
            loop, stack = other.sender.loop, other.sender.streams
            known = stack.get_lowest().sendto(b"anything" * 2, pair.receiver.listeners.address)
            loop.call_soon_threadsafe(loop.create_task, known)
            reason = wait_for_failure(other.sender.inbox, 30)
            assert reason is not None
            assert "runs the same under another launcher" in reason
        pair.send(0, torch.ones(1))
        receive(pair.inbox, 0)


def test_strangers_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
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
        assert 0 < len(caplog.records) <= 20


def test_a_node_that_is_there_already_is_refused_as_another_process() -> None:
    with open_pair() as pair:
        pair.sender.connect([1])
        pair.sender.streams.session = os.urandom(16)
        pair.receiver.loop.call_soon_threadsafe(cut_all, pair)
        reason = wait_for_failure(pair.sender.inbox, 30)
        assert reason is not None
        assert "part of the run already" in reason
        assert pair.inbox.failure is None


def test_a_second_process_under_a_nodes_name_does_not_take_its_place_in_discovery() -> None:
    run = RunIdentity({"a": "1"}, b"1" * 16)
    with open_pair(Setup(runs=(run, run))) as pair:
        pair.sender.connect([1])
        with open_pair(Setup(runs=(run, run))) as other:
            loop, stack = other.receiver.loop, other.receiver.streams
            at = Peer(pair.sender.listeners.address, pub_key="")
            asyncio.run_coroutine_threadsafe(stack.discovery.introduce_to_peer(at), loop).result(10)
            time.sleep(0.5)
        pair.receiver.loop.call_soon_threadsafe(cut_all, pair)
        pair.send(0, torch.ones(1))
        receive(pair.inbox, 0)


def test_a_callback_that_raises_ends_whoever_waits() -> None:
    with open_pair() as pair:
        # There is no such node.
        pair.sender.send(7, Header(ACTIVATION, 0, 0, 0, 0.0), torch.ones(1))
        with pytest.raises(LinksBrokenError, match="the network thread failed: IndexError"):
            receive(pair.sender.inbox, 0)
        with pytest.raises(LinksBrokenError):
            pair.sender.connect([1])


def test_sending_that_ends_by_a_mistake_of_ours_is_a_lost_peer(caplog: pytest.LogCaptureFixture) -> None:
    with open_pair() as pair:
        pair.sender.connect([1])
        sender = pair.sender.senders[1]
        # A frame that nobody can have queued, in the place of one.
        pair.sender.loop.call_soon_threadsafe(sender.waiting.append, None)
        pair.sender.loop.call_soon_threadsafe(sender.changed.set)
        assert wait_for_failure(pair.sender.inbox, 30) == (
            "sending to node 1 failed: TypeError('cannot unpack non-iterable NoneType object')"
        )
        assert "Traceback" in caplog.text


def test_a_machine_too_busy_to_open_links_is_told_so_in_one_line() -> None:
    listeners = Listeners.bind("127.0.0.1")
    limits = replace(LIMITS, connect_seconds=0.1)
    links = Links(Membership(3, 4, None), listeners, [], limits, Inbox({}, lambda sender: 0.0))
    busy = threading.Event()
    links.loop.call_soon(busy.wait)
    with pytest.raises(UserError, match=r"^peers.connect_seconds: the links of node 3 did not open in 0.1 s;"):
        links.start()
    busy.set()
    links.close()


def cut_all(pair: Pair) -> None:
    for neighbour in pair.receiver.streams.neighbours.values():
        assert neighbour.reader is not None
        neighbour.reader.connection.shutdown(socket.SHUT_RDWR)


def test_all_threads_end() -> None:
    before = threading.active_count()
    with open_pair() as pair:
        pair.sender.connect([1])
    assert threading.active_count() <= before
