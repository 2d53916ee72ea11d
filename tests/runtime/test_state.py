"""What a replica hands over beside its stage's numbers comes as it was, or is refused."""

from __future__ import annotations

import math

import pytest

from skippipe.runtime.figures import COUNT
from skippipe.runtime.state import Knowledge
from skippipe.transport.message import MalformedMessageError

MEMBERS = [1, 4]
FIGURES = {1: [float(number) for number in range(COUNT + 2)], 4: [math.inf, math.nan, *[0.0] * COUNT]}
KNOWLEDGE = Knowledge("0123456789abc" * 2, 7.0, 2, -1, 3.5, [8.0, 9.0], FIGURES)


def test_knowledge_comes_as_it_was() -> None:
    again = Knowledge.from_tensor(KNOWLEDGE.to_tensor(MEMBERS), MEMBERS)
    assert (again.run, again.step, again.dropped_in_a_row, again.proven) == ("0123456789abc" * 2, 7.0, 2, -1)
    assert (again.axis_s, again.places) == (3.5, [8.0, 9.0])
    assert again.figures[1] == FIGURES[1]
    assert math.isnan(again.figures[4][1])


@pytest.mark.parametrize("place", range(5), ids=["name", "name's end", "steps", "dropped in a row", "proven"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -2.0, 0.5, 2.0**52])
def test_what_is_no_knowledge_is_refused(place: int, value: float) -> None:
    rows = KNOWLEDGE.to_tensor(MEMBERS)
    rows[0, place] = value
    with pytest.raises(MalformedMessageError, match="is no whole number from"):
        Knowledge.from_tensor(rows, MEMBERS)


def test_a_time_that_is_no_number_is_refused() -> None:
    rows = KNOWLEDGE.to_tensor(MEMBERS)
    rows[0, 5] = math.nan
    with pytest.raises(MalformedMessageError, match="nan is no offset of clocks"):
        Knowledge.from_tensor(rows, MEMBERS)
