"""The agreement on views, tortured in simulated networks; benchmarks/agreement.py does so for longer."""

from __future__ import annotations

import pytest

from skippipe.survival.agreement import Agreement
from tests.survival.faults import Torture, breaks
from tests.survival.planted import PLANTED

SEEDS, PART = 2000, 100
MOST_SEEDS = 3000
"""In which a planted bug must be found; see planted.py for how often it is."""


@pytest.mark.parametrize("first", range(0, SEEDS, PART))
def test_no_fault_breaks_the_agreement(first: int) -> None:
    worlds = [Torture(seed) for seed in range(first, first + PART)]
    for world in worlds:
        world.run()
    assert sum(world.counts["had to end well"] for world in worlds) > PART // 4


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_bug_is_found(planted: type[Agreement]) -> None:
    assert any(breaks(Torture(seed, planted)) for seed in range(MOST_SEEDS))
