"""Links when things go wrong: what flows goes on, what can't go on ends at both ends with the reason."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import time
from dataclasses import replace

import pytest
import torch
from deccom.peers.peer import Peer

from skippipe.transport.clocks import Clock
from skippipe.transport.inbox import PeerLostError
from skippipe.transport.run_identity import RunIdentity
from tests.cases import Layer, drives
from tests.faults import Fault
from tests.transport.link_pair import (
    LIMITS,
    Pair,
    Setup,
    Way,
    cut_all,
    open_pair,
    receive,
    wait_for_failure,
    wait_for_line,
)

HOP_SECONDS = 0.5
BIG = 3_000_000
"""Numbers in a message of 12 MB."""
SMALL_BIG = 40_000
"""Numbers in a message of 160 KB, which is one long record."""
AHEAD = 3600.0
"""Seconds that a machine has slept."""
ONLY_ONE_NODE = (Fault.SECOND_LAUNCHER, Fault.SECOND_PROCESS, Fault.SECOND_NAME)


class ForeignClock(Clock):
    """Another machine's clock: ahead by some seconds, more of them after a suspend."""

    def __init__(self, ahead: float) -> None:
        self.ahead = ahead
        super().__init__()
        self.identity = os.urandom(16)

    def since_boot(self) -> float:
        return super().since_boot() + self.ahead


class FlipOnce:
    """Changes one bit in the middle of the nth piece that passes."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, data: bytearray) -> None:
        self.left -= 1
        if self.left == 0:
            data[len(data) // 2] ^= 1


def setup_of(fault: Fault) -> Setup:
    """Nodes to which it happens."""
    impatient = replace(LIMITS, silence_seconds=3.0)
    match fault:
        case Fault.SLOW_LINK:
            return Setup(limits=impatient, forth=Way(2e6))
        case Fault.VERY_SLOW_LINK:
            return Setup(limits=impatient, forth=Way(16e3))
        case Fault.SLOW_WAY_BACK:
            return Setup(limits=impatient, forth=Way(2e6), back=Way(1000))
        case Fault.FLIPPED_BIT:
            return Setup(forth=Way(damage=FlipOnce(40)))
        case Fault.FLIPPED_BIT_BACK:
            return Setup(forth=Way(), back=Way(damage=FlipOnce(3)))
        case Fault.SKEWED_SENDER | Fault.SLOW_SENDER | Fault.SUSPENDED_SENDER:
            ahead = {Fault.SKEWED_SENDER: 1e6, Fault.SLOW_SENDER: -1e3}.get(fault, 0.0)
            return Setup(clocks=(ForeignClock(ahead), Clock()), hop_s=HOP_SECONDS)
        case Fault.SKEWED_RECEIVER | Fault.SUSPENDED_RECEIVER:
            ahead = 1e6 if fault is Fault.SKEWED_RECEIVER else 0.0
            return Setup(clocks=(Clock(), ForeignClock(ahead)), hop_s=HOP_SECONDS)
    return Setup()


@drives(*(fault for fault in Fault.at(Layer.LINK, goes_on=True) if fault not in ONLY_ONE_NODE))
def test_links_go_on(fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    setup = setup_of(fault)
    with open_pair(setup) as pair:
        if fault is Fault.NO_DESCRIPTORS:
            connect_without_descriptors(pair)
        pair.sender.connect([1])
        if fault in (Fault.SUSPENDED_SENDER, Fault.SUSPENDED_RECEIVER):
            sleep_for_an_hour(pair, 0 if fault is Fault.SUSPENDED_SENDER else 1)
        big = SMALL_BIG if fault is Fault.VERY_SLOW_LINK else BIG
        tensors = [torch.randn(big if number == 1 else 5) for number in range(3)]
        sent = [pair.send(number, tensor) for number, tensor in enumerate(tensors)]
        for number, tensor in enumerate(tensors):
            ready, received = receive(pair.inbox, number)
            assert torch.equal(received, tensor)
            if setup.hop_s:
                # The hop counts from the send, whatever the clocks show; a busy machine measures them less well.
                assert -0.1 < ready - sent[number] - HOP_SECONDS < 0.1 + (time.monotonic() - sent[number])
        wait_for_line(caplog, fault.line)
        assert pair.sender.inbox.failure is pair.inbox.failure is None


def connect_without_descriptors(pair: Pair) -> None:
    """Let the receiver run out of file descriptors while somebody connects."""
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
    for client in clients:
        client.close()


def sleep_for_an_hour(pair: Pair, node: int) -> None:
    """Suspend a node's machine, and wait until the receiver knows how far the clocks are off now."""
    clock = (pair.sender, pair.receiver)[node].inbox.clock
    assert isinstance(clock, ForeignClock)
    clock.ahead = AHEAD
    deadline = time.monotonic() + 30
    while True:
        offsets = [neighbour.offset for neighbour in pair.receiver.streams.neighbours.values()]
        if offsets and abs(offsets[0] - (AHEAD if node else -AHEAD)) < 1:
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


@drives(Fault.REFUSED_FRAME)
def test_a_frame_that_is_refused_twice_ends_the_run_at_both_ends_with_the_reason(fault: Fault) -> None:
    with open_pair() as pair:
        pair.sender.connect([1])
        pair.send(0, torch.ones(1), iteration=5)
        assert lost(pair) == [
            f"node 1 refuses what this node sends: {fault.line}",
            f"node 0 sends what this node must refuse: {fault.line}",
        ]


@drives(Fault.HUNG_EXECUTOR)
def test_a_hung_executor_is_named_and_one_that_waits_is_not(fault: Fault) -> None:
    limits = replace(LIMITS, silence_seconds=2.0, work_seconds=1.0)
    with open_pair(Setup(limits=limits)) as pair:
        pair.sender.work.wait("the input of F7 in iteration 3")
        pair.sender.connect([1])
        assert wait_for_failure(pair.inbox, 3.0) is None
        pair.sender.work.begin("F7 of iteration 3")
        reason = wait_for_failure(pair.inbox, 30)
        assert reason is not None
        assert reason.startswith(fault.line)


@drives(Fault.OTHER_FIELD)
def test_nodes_that_differ_name_the_field_at_both_ends_at_once(fault: Fault) -> None:
    runs = tuple(RunIdentity({"seed": "0", "optimizer.learning_rate": rate}) for rate in ("0.1", "0.2"))
    with open_pair(Setup(runs=runs)) as pair:  # type: ignore[arg-type]
        began = time.monotonic()
        with pytest.raises(PeerLostError):
            pair.sender.connect([1])
        assert time.monotonic() - began < 10
        for reason, rate in zip(lost(pair), ("1", "2"), strict=True):
            assert f"{fault.line}{rate} here)" in reason


@drives(*ONLY_ONE_NODE)
def test_another_process_of_a_node_is_refused_and_the_first_goes_on(
    fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    first, member = RunIdentity({"a": "1"}, b"1" * 16), RunIdentity({"a": "1"})
    with open_pair(Setup(runs=(first, member))) as pair:
        pair.sender.connect([1])
        pair.receiver.connect([0])
        assert member.run_id == b"1" * 16
        if fault is Fault.SECOND_LAUNCHER:
            second = RunIdentity({"a": "1"}, b"2" * 16)
            with open_pair(Setup(runs=(second, RunIdentity({"a": "1"})))) as other:
                loop, stack = other.sender.loop, other.sender.streams
                known = stack.get_lowest().sendto(b"anything" * 2, pair.receiver.listeners.address)
                loop.call_soon_threadsafe(loop.create_task, known)
                assert fault.line in str(wait_for_failure(other.sender.inbox, 30))
        elif fault is Fault.SECOND_NAME:
            with open_pair(Setup(runs=(first, first))) as other:
                loop, stack = other.receiver.loop, other.receiver.streams
                at = Peer(pair.sender.listeners.address, pub_key="")
                asyncio.run_coroutine_threadsafe(stack.discovery.introduce_to_peer(at), loop).result(10)
                wait_for_line(caplog, fault.line)
            # Whoever is looked up now is still the first.
            pair.receiver.loop.call_soon_threadsafe(cut_all, pair)
        else:
            pair.sender.streams.session = os.urandom(16)
            pair.receiver.loop.call_soon_threadsafe(cut_all, pair)
            assert fault.line in str(wait_for_failure(pair.sender.inbox, 30))
            assert pair.inbox.failure is None
            return
        pair.send(0, torch.ones(1))
        receive(pair.inbox, 0)
