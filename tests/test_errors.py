"""Numbers as messages show them."""

from __future__ import annotations

from skippipe.errors import numbers_shown


def test_numbers_that_follow_one_another_are_a_range() -> None:
    assert numbers_shown([]) == ""
    assert numbers_shown([3]) == "3"
    assert numbers_shown({7, 3, 0, 1, 2}) == "0 to 3, 7"
