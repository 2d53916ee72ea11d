"""Files that come in parts: all of them, in their order, a few asked for ahead, and nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from skippipe.transport.fetching import AHEAD, PART_BYTES, Fetch
from skippipe.transport.message import Header, MalformedMessageError, MessageKind

HOLDER, NUMBER = 3, 7


def part(number: int, size: int, holder: int = HOLDER, file: int = NUMBER) -> tuple[Header, torch.Tensor]:
    return Header(MessageKind.FILE, 0, file, holder, 0.0, number), torch.empty(size, dtype=torch.uint8)


@given(some.integers(1, 9 * PART_BYTES))
def test_all_of_a_file_is_asked_for_once_and_not_too_far_ahead(size: int) -> None:
    fetch, asked, came = Fetch(NUMBER, HOLDER, size), list[int](), 0
    while not fetch.done:
        asked += fetch.ask()
        assert asked == list(range(len(asked)))
        assert fetch.came < len(asked) <= fetch.came + AHEAD
        length = min(PART_BYTES, size - came)
        fetch.take(*part(fetch.came, length))
        came += length
    assert came == size
    assert list(fetch.ask()) == []
    assert len(asked) == -(-size // PART_BYTES)


@pytest.mark.parametrize(
    "wrong",
    [
        part(1, PART_BYTES),
        part(0, PART_BYTES - 1),
        part(0, PART_BYTES, holder=4),
        part(0, PART_BYTES, file=8),
        (Header(MessageKind.ASK, 0, NUMBER, HOLDER, 0.0, 0), torch.empty(PART_BYTES, dtype=torch.uint8)),
    ],
)
def test_nothing_else_is_taken(wrong: tuple[Header, torch.Tensor]) -> None:
    fetch = Fetch(NUMBER, HOLDER, 2 * PART_BYTES)
    assert list(fetch.ask()) == [0, 1]
    with pytest.raises(MalformedMessageError, match=r"expected is 7\.0 of node 3: 4194304 bytes"):
        fetch.take(*wrong)
    fetch.take(*part(0, PART_BYTES))
    with pytest.raises(MalformedMessageError):
        fetch.take(*part(0, PART_BYTES))
