"""The cost model in numbers."""

from __future__ import annotations

import numpy as np
import pytest

from skippipe.schedule import Costs
from skippipe.schedule.costs import (
    FASTEST_GIB_S,
    GIB,
    Rates,
    activation_bytes,
    gib_per_second,
    hop_bandwidth,
    hop_seconds,
    layer_parameters,
    pair_sync_seconds,
    sync_bytes,
    sync_seconds,
    transfer_seconds,
)


def test_costs_of_the_paper() -> None:
    assert layer_parameters(1024) == 16_779_264
    assert activation_bytes(1024, 1024, 8) == 33_554_432
    assert hop_seconds(100.0, 0.03125, 2**25, Rates().hop_fixed_s) == pytest.approx(0.1 + 1.0 + 0.35)
    bandwidth = np.array([[2.0, 0.5], [0.5, 2.0]])
    assert sync_seconds([0, 1], bandwidth, sync_bytes(layer_parameters(1024), 8.0)) == pytest.approx(
        8 * 16_779_264 / 2**29
    )
    assert sync_seconds([0], bandwidth, 1) == 0.0
    assert sync_seconds([], bandwidth, 1) == 0.0


def test_sync_goes_by_the_slowest_link_in_either_direction() -> None:
    bandwidth = np.array([[9.0, 0.5, 4.0], [1.0, 9.0, 2.0], [4.0, 2.0, 9.0]])
    pairs = pair_sync_seconds(bandwidth, GIB)
    assert pairs.tolist() == [[0.0, 2.0, 0.25], [2.0, 0.0, 0.5], [0.25, 0.5, 0.0]]
    assert sync_seconds([0, 2], bandwidth, GIB) == 0.25
    assert sync_seconds([2, 0, 1], bandwidth, GIB) == 2.0
    assert not pair_sync_seconds(bandwidth, 0).any()


def test_bandwidth_is_bytes_over_seconds() -> None:
    assert gib_per_second(3 * GIB, 2.0) == 1.5
    assert transfer_seconds(3 * GIB, 1.5) == 2.0


def test_the_fixed_part_of_a_hop_is_what_its_bytes_do_not_take() -> None:
    costs = Costs(np.ones(2), 0.25, 1.5, 0.1, np.array([[0.0, 3.0], [3.0, 0.0]]))
    halved = costs.for_compression(np.full((2, 2), 0.5), np.full((2, 2), 2.0))
    assert halved.hop_s.tolist() == [[0.0, 2.0], [2.0, 0.0]]
    assert costs.for_samples(2.0, np.full((2, 2), 2.0)).hop_s.tolist() == [[0.0, 5.0], [5.0, 0.0]]


def test_a_loss_of_its_own_is_kept_only_if_it_is_no_share_of_forward() -> None:
    forward_s, hop_s = np.array([1.0, 2.0]), np.zeros((2, 2))
    share = Costs.of_rates(forward_s, Rates(), hop_s, forward_s / 2)
    assert share.measured_loss_s is None
    assert share.loss_factor == 0.5
    own = Costs.of_rates(forward_s, Rates(), hop_s, np.array([0.6, 0.6]))
    assert own.loss_factor == pytest.approx(0.4)
    assert own.arrays.loss_s.tolist() == [0.6, 0.6]
    assert own.for_samples(2.0, hop_s).loss_s.tolist() == [1.2, 1.2]


def test_the_bandwidth_of_a_hop_makes_it_take_what_was_measured() -> None:
    bandwidth = hop_bandwidth(0.35, 100.0, 0.05, 2**28)
    assert hop_seconds(100.0, bandwidth, 2**28, 0.05) == pytest.approx(0.35)
    # A hop no longer than its latency: the bytes seem to take no time.
    assert hop_bandwidth(0.1, 100.0, 0.05, 2**28) == pytest.approx(FASTEST_GIB_S)


def test_messages_keep_links_and_uplinks_busy_in_proportion_to_their_bytes() -> None:
    transfer_s = np.array([[9.0, 3.0, 1.0], [3.0, 9.0, 2.0], [1.0, 2.0, 9.0]])
    costs = Costs(np.ones(3), 0.25, 1.5, 0.1, transfer_s + 1)
    assert costs.with_queueing("none", transfer_s) is costs
    assert not costs.arrays.link_busy_s.any()
    link = costs.with_queueing("link", transfer_s)
    assert link.arrays.link_busy_s.tolist() == [[0.0, 3.0, 1.0], [3.0, 0.0, 2.0], [1.0, 2.0, 0.0]]
    assert not link.arrays.uplink_busy_s.any()
    uplink = costs.with_queueing("uplink", transfer_s)
    assert uplink.arrays.link_busy_s.tolist() == link.arrays.link_busy_s.tolist()
    assert uplink.arrays.uplink_busy_s.tolist() == [[0.0, 1.0, 1.0], [2.0, 0.0, 2.0], [1.0, 1.0, 0.0]]
    twice = uplink.for_samples(2.0, transfer_s).arrays
    assert twice.link_busy_s.tolist() == (2 * uplink.arrays.link_busy_s).tolist()
    assert twice.uplink_busy_s.tolist() == (2 * uplink.arrays.uplink_busy_s).tolist()


def test_arrays_follow_the_costs() -> None:
    costs = Costs(np.array([1.0, 2.0]), 0.25, 1.5, 0.5, np.ones((2, 2)))
    arrays = costs.arrays
    assert arrays.loss_s.tolist() == [0.25, 0.5]
    assert arrays.backward_s.tolist() == [1.5, 3.0]
    assert arrays.gap_s == 0.5
    assert costs.for_samples(2.0, np.zeros((2, 2))).arrays.forward_s.tolist() == [2.0, 4.0]
