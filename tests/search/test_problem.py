"""The costs of a problem: the network's rates, what the search is told instead, and the head in stage 0's sync."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from skippipe.config import SYNC_BLOCK, CompressionConfig
from skippipe.schedule import Schedule
from skippipe.schedule.compression import with_compression
from skippipe.schedule.costs import GIB
from skippipe.search.bounds import bounds_of_any_stages, bounds_of_given_stages
from skippipe.search.driver import search
from skippipe.search.problem import Instance
from skippipe.search.progress import Progress
from tests.search.instances import light_config

NETWORK = """
locations: [a, b]
default: {latency_ms: 10, bandwidth_gib_s: 0.5}
same_location: {latency_ms: 1, bandwidth_gib_s: 1}
compute_seconds_per_sample_layer: {a: 0.1, b: 0.2}
loss_seconds_per_sample: {a: 0.03, b: 0.01}
hop_fixed_s: 0.02
task_gap_s: 0.004
backward_factor: 2.5
sync_bytes_per_parameter: 4
"""
SMALL = {"nodes": 9, "stages": 4, "stage_sizes": [3, 2, 2, 2], "path_length": 3, "d_model": 64, "heads": 4}


@pytest.fixture
def network(tmp_path: Path) -> str:
    path = tmp_path / "own.yaml"
    path.write_text(NETWORK)
    return str(path)


def test_costs_are_those_of_the_network_file(network: str) -> None:
    instance = Instance.from_config(light_config(network=network, layers_per_stage=1, context=32, **SMALL))
    costs, pipeline = instance.costs, instance.pipeline
    assert pipeline.activation_bytes == 4 * 64 * 32 * 8
    assert costs.hop_s[0, 1] == pytest.approx(0.01 + pipeline.activation_bytes / (0.5 * GIB) + 0.02)
    assert costs.forward_s[:2].tolist() == pytest.approx([0.8, 1.6])
    assert costs.backward_s[:2].tolist() == pytest.approx([2.0, 4.0])
    assert costs.loss_s[:2].tolist() == pytest.approx([0.24, 0.08])
    assert costs.task_gap_s == 0.004
    assert pipeline.stage_bytes == 4 * (4 * 64**2 + 3 * 64 * 256 + 2 * 64)


def test_what_the_search_is_told_counts_more(network: str) -> None:
    told = {"loss_factor": 0.5, "hop_fixed_s": 0.0, "feed_forward": 100, "sync_bytes_per_parameter": 2.0}
    instance = Instance.from_config(light_config(network=network, layers_per_stage=1, context=32, **SMALL, **told))
    assert instance.costs.loss_s[:2].tolist() == pytest.approx([0.4, 0.8])
    assert instance.costs.hop_s[0, 1] < 0.011
    assert instance.pipeline.stage_bytes == 2 * (4 * 64**2 + 3 * 64 * 100 + 2 * 64)


def test_a_search_for_compressed_messages_has_shorter_hops_and_syncs_and_says_so_in_the_file(network: str) -> None:
    fields = {"network": network, "layers_per_stage": 1, "settings": ["ca-partial"], **SMALL}
    plain = Instance.from_config(light_config(**fields))
    config = light_config(hop_encoding="bf16", sync_encoding="int8", **fields)
    instance = Instance.from_config(config)
    assert instance.costs.hop_s[0, 1] - 0.03 == pytest.approx((plain.costs.hop_s[0, 1] - 0.03) / 2)
    ratio = 0.25 + 1 / SYNC_BLOCK
    np.testing.assert_allclose(instance.pair_sync_s, ratio * plain.pair_sync_s)
    schedule = Schedule.from_json(search(instance, config, Progress()).to_json())
    plan = schedule.plan("ca-partial")
    assert list(plan.sync_s) == pytest.approx(instance.sync_s(plan.stages))
    assert (schedule.pipeline.hop_encoding, schedule.pipeline.sync_encoding) == ("bf16", "int8")
    assert Instance.from_schedule(schedule, "ca-partial").sync_s(plan.stages) == pytest.approx(plan.sync_s)
    exact = with_compression(CompressionConfig(), schedule)
    np.testing.assert_allclose(exact.costs.hop_s, plain.costs.hop_s)
    assert exact.plan("ca-partial").sync_s == pytest.approx(plain.sync_s(plan.stages))


def test_messages_wait_as_the_network_or_the_search_says(network: str) -> None:
    fields = {"network": network, "layers_per_stage": 1, **SMALL}
    plain = Instance.from_config(light_config(**fields)).costs
    assert plain.link_busy_s is None
    link = Instance.from_config(light_config(queueing="link", **fields)).costs
    assert link.link_busy_s is not None
    assert link.link_busy_s[0, 1] == pytest.approx(plain.hop_s[0, 1] - 0.01 - 0.02)
    Path(network).write_text(NETWORK + "queueing: uplink\n")
    uplink = Instance.from_config(light_config(**fields)).costs
    assert uplink.uplink_busy_s is not None
    # Nodes of one location have the faster link, which is then the speed of all that they send.
    assert uplink.uplink_busy_s[0, 1] == pytest.approx(link.link_busy_s[0, 1] / 2)
    assert Instance.from_config(light_config(queueing="none", **fields)).costs.link_busy_s is None


def test_plans_are_timed_with_the_queues_that_messages_wait_in(network: str) -> None:
    config = light_config(network=network, layers_per_stage=1, queueing="link", settings=["ca-partial"], **SMALL)
    schedule = search(Instance.from_config(config), config, Progress())
    again = Schedule.from_json(schedule.to_json())
    np.testing.assert_array_equal(again.costs.arrays.link_busy_s, schedule.costs.arrays.link_busy_s)
    for setting, plan in schedule.settings.items():
        assert again.simulate(setting).step_s == pytest.approx(plan.expected_step_s)


def test_losses_of_their_own_and_the_width_stand_in_the_file(network: str) -> None:
    config = light_config(network=network, layers_per_stage=1, settings=["ca-partial"], feed_forward=100, **SMALL)
    schedule = search(Instance.from_config(config), config, Progress())
    again = Schedule.from_json(schedule.to_json())
    assert again.to_json() == schedule.to_json()
    np.testing.assert_array_equal(again.costs.loss_s, schedule.costs.loss_s)
    assert again.pipeline.hidden_width == 100
    assert again.with_samples(16).costs.loss_s.tolist() == pytest.approx((2 * again.costs.loss_s).tolist())


def test_the_head_makes_the_sync_of_stage_0_longer_for_every_setting_and_bound(network: str) -> None:
    plain = light_config(network=network, layers_per_stage=1, **SMALL)
    config = light_config(network=network, layers_per_stage=1, sync_head=True, vocabulary=2_000_000, **SMALL)
    instance = Instance.from_config(config)
    head = 4 * (2 * 2_000_000 * 64 + 64)
    assert instance.pipeline.sync_bytes[0] == Instance.from_config(plain).pipeline.stage_bytes + head
    schedule = search(instance, config, Progress())
    assert Schedule.from_json(schedule.to_json()).to_json() == schedule.to_json()
    for plan in schedule.settings.values():
        assert list(plan.sync_s) == instance.sync_s(plan.stages)
        assert plan.sync_s[0] > 0.4
        for bounds in (bounds_of_any_stages, bounds_of_given_stages):
            assert bounds(instance, plan)[1] <= plan.expected_step_s + 1e-9
