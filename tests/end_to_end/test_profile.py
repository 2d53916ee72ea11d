"""Peers measure their links and compute, and the file that they write is a network for the search."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from skippipe.runtime.profiler import take_turns
from skippipe.schedule.costs import Rates
from skippipe.schedule.network import load_network
from tests.end_to_end.conftest import SECONDS


def test_profile_writes_a_network_of_all_pairs(tmp_path: Path) -> None:
    out = tmp_path / "measured.yaml"
    finished = subprocess.run(
        [sys.executable, "-m", "skippipe", "profile", "0", "4", "4", "2", "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    network = load_network(out)
    locations = network.spread(4)
    latency_ms, bandwidth_gib_s = network.between(locations)
    assert len(set(locations)) == 4
    # Loopback: far below a second, far above a modem.
    assert (latency_ms < 500).all()
    assert (bandwidth_gib_s > 0.001).all()
    assert all(0 < seconds < 1 for seconds in network.compute_seconds(locations))
    losses = network.loss_seconds(locations)
    assert losses is not None
    assert all(0 < seconds < 1 for seconds in losses)
    # No GPU to copy to and from: far below the original's 0.35 and 0.13 s.
    assert 0 <= network.rates.hop_fixed_s < 0.2
    assert 0 <= network.rates.task_gap_s < 0.1
    assert 0.3 < network.rates.backward_factor < 10
    assert 0 < network.rates.sync_bytes_per_parameter < 1e6
    assert network.rates != Rates()


def test_profile_refuses_nodes_beyond_all() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "skippipe", "profile", "0", "5", "4", "2"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert finished.returncode == 2
    assert "LAST <= NODES" in finished.stderr


@pytest.mark.parametrize("hosts", [[1], [1, 1, 1], [1, 2, 3, 4, 5], [1, 1, 2, 3, 3]])
def test_turns_measure_every_pair_once_and_no_host_twice_at_a_time(hosts: list[int]) -> None:
    turns = take_turns(hosts)
    pairs = [pair for together in turns for pair in together]
    assert len(pairs) == len(set(pairs)) == len(hosts) * (len(hosts) + 1) // 2
    for together in turns:
        used = [{hosts[node] for node in pair} for pair in together]
        assert sum(map(len, used)) == len(set().union(*used))
