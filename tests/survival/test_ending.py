"""The end of a run as the members agree on it."""

from __future__ import annotations

import pytest

from skippipe.survival.ending import ending, is_ending, loss_told, read_ending
from skippipe.survival.view import View
from tests.survival.test_course import plan_of


def test_an_end_survives_its_bytes_and_is_no_view() -> None:
    value = ending({7, 0}, "nobody is left")
    assert is_ending(value)
    assert read_ending(value) == ((0, 7), "nobody is left")
    assert not is_ending(View(0, 0, "start", "the run begins", plan_of([0]), -1).to_bytes())


@pytest.mark.parametrize(
    "value", [b"!", b"!{}", b"![1]", b"!" + b"[" * 100_000, b'![1, "x"]', b'![["a"], "x"]', b'![[true], "x"]']
)
def test_malformed_ends_are_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"malformed|no numbers|Expecting value|too deeply"):
        read_ending(value)


def test_nodes_in_words() -> None:
    assert loss_told([3], "no node holds stage 0") == "node 3 is lost, and no node holds stage 0"
    assert loss_told({5, 3}, "no node holds stage 0") == "nodes 3, 5 are lost, and no node holds stage 0"
    assert loss_told((), "no node holds stage 0") == "no node holds stage 0"
