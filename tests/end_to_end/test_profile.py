"""Peers measure their links and compute, and the file that they write is a network for the search."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from skippipe.report.metrics import read_summary
from skippipe.runtime.profiler import take_turns
from skippipe.schedule.costs import Rates, hop_seconds, transfer_seconds
from skippipe.schedule.network import load_network
from skippipe.search.driver import search
from skippipe.search.problem import Instance
from skippipe.search.progress import Progress
from tests.end_to_end.conftest import SECONDS, Start
from tests.search.instances import light_config


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network file of four nodes of this machine, for microbatches of two sequences of the workplace's model."""
    out = tmp_path_factory.mktemp("profile") / "measured.yaml"
    finished = subprocess.run(
        [sys.executable, "-m", "skippipe", "profile", "0", "4", "4", "2", "model.context=32", "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return out


def test_profile_writes_a_network_of_all_pairs(measured: Path) -> None:
    network = load_network(measured)
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
    assert network.queueing == "link"


def test_a_search_on_the_profile_gives_a_run_without_emulation_its_expected_times(
    measured: Path, workplace: Path, start: Start, tmp_path: Path
) -> None:
    """What a step takes is the machine's; that it is held against the costs that were profiled is ours."""
    shape = {"nodes": 4, "stages": 3, "stage_sizes": [2, 1, 1], "path_length": 2, "memory": 1, "layers_per_stage": 1}
    model = {"d_model": 64, "heads": 4, "context": 32, "samples_per_microbatch": 2, "microbatches_per_node": 2}
    config = light_config(network=str(measured), settings=["baseline", "ca-partial"], **shape, **model)
    schedule = search(Instance.from_config(config), config, Progress())
    schedule.save(tmp_path / "schedule.json")
    network = load_network(measured)
    latency_ms, bandwidth = network.between(network.spread(4))
    np.testing.assert_allclose(schedule.costs.forward_s, 2 * network.compute_seconds(network.spread(4)))
    np.testing.assert_allclose(schedule.costs.loss_s, 2 * np.array(network.loss_seconds_per_sample))
    assert schedule.costs.task_gap_s == network.rates.task_gap_s
    hop_s = hop_seconds(latency_ms, bandwidth, 4 * 2 * 32 * 64, network.rates.hop_fixed_s)
    np.testing.assert_allclose(schedule.costs.hop_s, np.where(np.eye(4), 0.0, hop_s))
    busy_s = transfer_seconds(4 * 2 * 32 * 64, bandwidth)
    np.testing.assert_allclose(schedule.costs.arrays.link_busy_s, np.where(np.eye(4), 0.0, busy_s))
    own = [f"schedule={tmp_path}/schedule.json", f"runs={tmp_path}", "emulation.enabled=false", "iterations=2"]
    run = start("0", "4", "ca-partial", "2", f"{workplace}/small.yaml", *own, "name=real")
    output, errors = run.communicate(timeout=SECONDS)
    assert run.returncode == 0, errors
    summary = read_summary(tmp_path / "real")
    expected = schedule.plan("ca-partial").expected_step_s
    assert summary.expected_step_s == expected
    assert summary.measured_over_expected == pytest.approx(summary.measured_step_s / expected)
    assert re.search(rf"step +\S+ s measured \(median\), {expected:.2f} s expected", output), output
    refused = start("0", "4", "ca-partial", "2", f"{workplace}/small.yaml", *own, "model.feed_forward=100")
    _, errors = refused.communicate(timeout=SECONDS)
    assert refused.returncode == 2
    assert "pipeline.feed_forward is 256, but model.feed_forward is 100; add model.feed_forward=256" in errors


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
