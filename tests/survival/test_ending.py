"""The end of a run as the members agree on it."""

from __future__ import annotations

import pytest

from skippipe.survival.ending import ending, is_ending, name_nodes, read_ending
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
    assert name_nodes([3]) == "node 3 is"
    assert name_nodes({5, 3}) == "nodes 3, 5 are"
