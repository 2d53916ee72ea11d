"""The agreement on views, tortured in a simulated network."""

from __future__ import annotations

from tests.survival.faults import Torture


def test_torture() -> None:
    for seed in range(300):
        Torture(seed).run()
