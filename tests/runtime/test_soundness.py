"""What is not finite is found wherever it is, and of several findings the cause is named."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skippipe.errors import DivergedError
from skippipe.runtime.soundness import Drops, Poison, first_cause, is_finite, poison_of_task
from skippipe.schedule.plan import Kind
from skippipe.transport.message import MalformedMessageError

STAGE_OF = {0: 0, 1: 0, 2: 1, 3: 1}
FINE, BAD = torch.ones(3), torch.tensor([1.0, math.nan, 1.0])


@given(st.lists(st.floats(width=32), min_size=1))
def test_a_tensor_is_finite_if_all_of_its_numbers_are(numbers: list[float]) -> None:
    assert is_finite(torch.tensor(numbers)) == all(map(math.isfinite, numbers))


def test_finite_numbers_whose_sum_overflows_are_finite() -> None:
    assert is_finite(torch.full((4,), 3e38))
    assert not is_finite(torch.tensor([math.inf, -math.inf]))


@pytest.mark.parametrize(
    ("kind", "received", "result", "loss", "found"),
    [
        (Kind.FORWARD, None, FINE, 0.0, None),
        (Kind.FORWARD, FINE, BAD, 0.0, Poison.ACTIVATION),
        (Kind.FORWARD, BAD, BAD, 0.0, Poison.INPUT),
        (Kind.LOSS, FINE, FINE, math.inf, Poison.LOSS),
        (Kind.LOSS, FINE, BAD, 1.0, Poison.GRADIENT),
        (Kind.LOSS, BAD, BAD, math.nan, Poison.INPUT),
        (Kind.BACKWARD, FINE, BAD, 0.0, Poison.GRADIENT),
        (Kind.BACKWARD, FINE, None, 0.0, None),
        (Kind.BACKWARD, BAD, None, 0.0, Poison.INPUT),
    ],
)
def test_a_task_blames_what_it_received_before_itself(
    kind: Kind, received: torch.Tensor | None, result: torch.Tensor | None, loss: float, found: Poison | None
) -> None:
    leaves = received if result is None else result
    assert leaves is not None
    assert poison_of_task(kind, received, result, loss, float(leaves.sum())) is found


@pytest.mark.parametrize("poison", Poison)
def test_the_cause_is_named_before_those_that_only_received_it(poison: Poison) -> None:
    assert first_cause(dict.fromkeys(range(4), 0.0), STAGE_OF) is None
    alone = first_cause({0: 0, 2: float(poison)}, STAGE_OF)
    assert alone == f"{poison.text} node 2 (stage 1) was not finite"
    named = first_cause({0: float(Poison.INPUT), 1: float(Poison.INPUT), 2: float(poison)}, STAGE_OF)
    assert named is not None
    assert ("node 2 (stage 1)" in named) == (poison is not Poison.INPUT)
    assert named.endswith("; 2 other nodes met such numbers too")


@pytest.mark.parametrize("figure", [math.nan, math.inf, -math.inf, -1.0, 1.5, 7.0, 1e300])
def test_what_is_no_finding_is_refused_and_whose_it_is_named(figure: float) -> None:
    with pytest.raises(
        MalformedMessageError, match=r"^node 2 shares what can't be read: \S+ is no whole number from 1 to 6$"
    ):
        first_cause({0: 0.0, 1: float(Poison.LOSS), 2: figure}, STAGE_OF)


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 5))
def test_a_run_diverges_after_so_many_drops_in_a_row(dropped: list[bool], most: int) -> None:
    drops = Drops(most, 10)
    for place, bad in enumerate(dropped):
        drops.count(10 + place, "a cause" if bad else None)
        last = list(itertools.takewhile(bool, reversed(dropped[: place + 1])))
        assert drops.in_a_row == len(last)
        assert drops.proven == 10 + place - len(last)
        assert drops.diverged == (len(last) >= most)
        if drops.diverged:
            with pytest.raises(DivergedError, match="iterations were dropped, the last one because a cause"):
                drops.check()
        else:
            drops.check()
