"""What holds for all tests: random inputs are tried without a time limit, and what takes longest begins first."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no mistake.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

TESTS = Path(__file__).resolve().parent
LONGEST = (
    "experiments/test_churn.py",
    "end_to_end/test_faults.py",
    "end_to_end/test_join.py",
    "end_to_end/test_rejoin.py",
    "end_to_end/test_hangs.py",
    "end_to_end/test_lost_stage.py",
    "end_to_end/test_replan.py",
    "end_to_end/test_no_shared_disk.py",
    "end_to_end/test_stream.py",
    "end_to_end/test_profile.py",
    "end_to_end/test_live_evaluation.py",
    "end_to_end/test_equivalence.py",
    "end_to_end/test_machines.py",
    "model/test_precision.py",
    "experiments/test_quick.py",
    "end_to_end",
)
"""Modules and folders with tests of tens of seconds: one of them at the end would leave the other workers idle."""


def turn(path: Path) -> int:
    """When a module's tests begin: the place of the first of LONGEST that it is or lies in."""
    return next((place for place, name in enumerate(LONGEST) if path.is_relative_to(TESTS / name)), len(LONGEST))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what takes longest begin first; tests of a module stay together."""
    items.sort(key=lambda item: turn(item.path))
