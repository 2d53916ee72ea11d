"""Which device and how many threads each node of a machine gets."""

import pytest

from skippipe.cli.prepare import devices_to_check
from skippipe.runtime.share import device_of, threads_of


@pytest.mark.parametrize(("gpus", "expected"), [(1, [0, 0, 0, 0, 0]), (2, [0, 1, 0, 1, 0]), (8, [0, 1, 2, 3, 4])])
def test_cuda_spreads_a_machines_nodes_over_its_gpus(gpus, expected):
    assert [device_of("cuda", place, gpus) for place in range(5)] == [f"cuda:{gpu}" for gpu in expected]


@pytest.mark.parametrize("asked", ["cuda:1", "cpu", "mps"])
def test_a_device_that_is_named_is_every_nodes(asked):
    assert {device_of(asked, place, gpus) for place in range(5) for gpus in (0, 1, 4)} == {asked}


def test_all_gpus_that_nodes_would_get_are_tried_before_the_start():
    assert devices_to_check("cuda", 3) == ["cuda:0", "cuda:1", "cuda:2"]
    # Without one torch says why.
    assert devices_to_check("cuda", 0) == ["cuda"]
    assert devices_to_check("cuda:1", 3) == ["cuda:1"]
    assert devices_to_check("cpu", 0) == ["cpu"]


@pytest.mark.parametrize(
    ("asked", "cores", "nodes", "emulated", "expected"),
    [
        (None, 16, 1, False, 16),
        (None, 16, 1, True, 16),
        (None, 16, 5, False, 3),
        (None, 16, 5, True, 1),
        (None, 2, 20, False, 1),
        (6, 16, 5, True, 6),
        (1, 16, 1, False, 1),
    ],
)
def test_nodes_share_a_machines_cores_unless_their_times_are_emulated(asked, cores, nodes, emulated, expected):
    assert threads_of(asked, cores, nodes, emulated) == expected
