"""benchmarks/chaos.py really cuts and slows down links and skews clocks, and the links bear it."""

from __future__ import annotations

import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

from skippipe.runtime import member
from skippipe.transport.clocks import Clock
from skippipe.transport.links import Links
from skippipe.transport.membership import Limits, Listeners
from skippipe.transport.streams import PeerStreams
from tests.benchmarks.conftest import LoadScript
from tests.end_to_end.conftest import wait_for
from tests.transport.link_pair import receive
from tests.transport.test_links import make_node, send

NUMBERS = 50_000
"""In a message, of 200 KB."""
PATIENT = Limits(1 << 20, 60.0, 60.0)


@pytest.fixture
def chaos(monkeypatch: pytest.MonkeyPatch, load_script: LoadScript) -> ModuleType:
    """The benchmark, whose patches are undone in the end."""
    for target, name in ((member, "Clock"), (Links, "start"), (PeerStreams, "introduce")):
        monkeypatch.setattr(target, name, getattr(target, name))
    return load_script("chaos")


def test_links_are_cut_and_slowed_down_and_nothing_is_lost(
    chaos: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listeners = [Listeners.bind("127.0.0.1") for _ in range(2)]
    for name, value in {
        "CUT_EVERY_S": 0.1,
        "CUT_PART": 0.0,
        "SLOW_TO": 1,
        "PORT": listeners[1].stream_port - 1,
        "SLOW_BYTES_A_SECOND": 4e5,
    }.items():
        monkeypatch.setattr(chaos, name, value)
    chaos.misbehave(tmp_path)
    cuts = tmp_path / "cuts-0"
    bootstrap = [listeners[0].address]
    sender, _ = make_node(0, 2, listeners[0], bootstrap, limits=PATIENT)
    receiver, inbox = make_node(1, 2, listeners[1], bootstrap, limits=PATIENT)
    try:
        sender.connect([1])
        began = time.monotonic()
        tensor = torch.randn(NUMBERS)
        send(sender, 0, tensor)
        assert torch.equal(receive(inbox, 0)[1], tensor)
        assert time.monotonic() - began > 0.4
        monkeypatch.setattr(chaos, "CUT_PART", 1.0)
        wait_for(lambda: cuts.exists() and cuts.read_text() not in ("", "0"))
        monkeypatch.setattr(chaos, "CUT_PART", 0.0)
        send(sender, 1, tensor)
        assert torch.equal(receive(inbox, 1)[1], tensor)
    finally:
        sender.close()
        receiver.close()


def test_a_machine_has_one_clock_that_is_off(chaos: ModuleType, tmp_path: Path) -> None:
    chaos.misbehave(tmp_path)
    first, second = member.Clock(), member.Clock()
    assert first.identity == second.identity != Clock().identity
    assert first.wire(7.0) - Clock().wire(7.0) == pytest.approx(chaos.SkewedClock.skew, abs=0.01)
    assert abs(chaos.SkewedClock.skew) <= chaos.MOST_SKEW_S
