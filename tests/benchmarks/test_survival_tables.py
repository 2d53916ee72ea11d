"""What the benchmarks of survival say of their figures: too slow, too large, or not exact."""

from __future__ import annotations

import pytest

from benchmarks.survival_before import Measured, verdict
from benchmarks.survival_small import Death, summary


@pytest.mark.parametrize(
    ("step_s", "megabytes", "is_met"), [(10.1, 70.0, True), (10.2, 50.0, False), (10.0, 70.1, False)]
)
def test_a_build_that_is_slower_or_larger_than_asked_is_told(step_s: float, megabytes: float, is_met: bool) -> None:
    before = [Measured(9.0, 10.0), Measured(10.0, 50.0), Measured(11.0, 90.0)]
    said = verdict(before, [Measured(1.0, 1.0), Measured(step_s, megabytes), Measured(99.0, 999.0)])
    assert f"{step_s / 10:.4f} of what it took" in said
    assert f"has {megabytes - 50:+.1f} MB" in said
    assert ("**not met**" not in said) == is_met


def death(loss: float = 1e-8, tensor: float = 1e-8, are_equal: bool = True) -> Death:
    """Of a node whose tasks were taken over."""
    return Death(3, 1.5, 2, "takeover", loss, tensor, are_equal)


@pytest.mark.parametrize("wrong", [death(loss=2e-5), death(tensor=2e-5), death(are_equal=False)])
def test_a_death_after_which_anything_differs_is_not_exact(wrong: Death) -> None:
    assert death().is_exact
    assert not wrong.is_exact
    assert "**NO**" in wrong.row()
    assert "**NO**" not in death().row()
    assert summary([death(), wrong], failed=2).startswith("Of 4 deaths 1 left the training exact")
