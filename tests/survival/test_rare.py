"""Stories that chance rarely finds: each breaks an agreement with a planted bug, and no sound one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from skippipe.survival.agreement import Agreement
from skippipe.survival.messages import Accept, Accepted, Decided, Excluded, Join, Prepare, Reject
from tests.survival.planted import (
    CountsDeathsAtOnce,
    KeepsItsBallot,
    TakesLowestAccepted,
    TheirViewIsForgotten,
    VotesAfterLeaving,
)
from tests.survival.process import ViolationError
from tests.survival.story import Story


def higher_ballot_of_the_dead(machine: type[Agreement]) -> Story:
    """0 and 1 accept in a low ballot, 2, 3 and 4 in a higher one and die; 1 finishes that on answers under way."""
    story = Story(5, machine)
    story.suspect(0, 3, 4)
    story.prepare(0, 1, 2)
    story.pass_on(0, Accept, 1)
    story.suspect(2, 0, 1)
    story.prepare(2, 3, 4)
    story.pass_on(2, Accept, 3, 4)
    story.suspect(1, 0)
    story.pass_on(1, Prepare, 2)
    story.pass_on(2, Reject, 1)
    story.wait(1)
    story.under_way = [entry for entry in story.under_way if entry[:2] != (1, 0) or isinstance(entry[2], Accepted)]
    story.prepare(1, 2, 3, 4)
    story.pass_on(1, Accept, 2, 3, 4)
    story.end(2, 3, 4)
    story.hear_of_deaths(0)
    story.pass_on(1, Accepted, 0)
    for node in (2, 3):
        story.pass_on(node, Accepted, 1)
    return story


def lower_ballot_of_the_living(machine: type[Agreement]) -> Story:
    """2, 3 and 4 die; 0 and 1 accept in a lower ballot; 1 hears of the higher one of the dead and takes that over."""
    story = Story(5, machine)
    story.suspect(2, 0, 1)
    story.prepare(2, 3, 4)
    story.end(2, 3, 4)
    story.hear_of_deaths(0)
    story.prepare(0, 1)
    story.pass_on(0, Accept, 1)
    story.pass_on(2, Accept, 1)
    story.suspect(1, 0)
    story.hear_of_deaths(1)
    story.wait(1)
    story.prepare(1, 0)
    story.pass_on(1, Accept, 0)
    first = story.under_way.index(next(e for e in story.under_way if e[:2] == (1, 0) and isinstance(e[2], Accepted)))
    story.deliver(*story.under_way.pop(first))
    story.pass_on(0, Accepted, 1)
    return story


def lowest_of_two_accepted(machine: type[Agreement]) -> Story:
    """1 accepts in a low ballot, 2, 3 and 4 decide in a higher one; 1 must find out what."""
    story = Story(5, machine)
    story.want_change(0)
    story.prepare(0, 1, 2, 3, 4)
    story.pass_on(0, Accept, 1)
    story.suspect(2, 0, 1)
    story.prepare(2, 3, 4)
    story.pass_on(2, Accept, 3, 4)
    for node in (3, 4):
        story.pass_on(node, Accepted, 2)
    story.lose_all()
    story.suspect(1, 0, 2)
    story.wait(1)
    story.pass_on(1, Prepare, 3)
    story.pass_on(3, Reject, 1)
    story.wait(1)
    story.prepare(1, 3, 4)
    story.pass_on(1, Accept, 3, 4)
    for node in (3, 4):
        story.pass_on(node, Accepted, 1)
    return story


def joiner_of_the_dead(machine: type[Agreement]) -> Story:
    """0 is stopped; 1 and 2 go on with 3, which joins, and die."""
    story = Story(4, machine, first=3)
    story.start_again(3)
    story.suspect(1, 0)
    story.pass_on(3, Join, 0)
    story.wait(3)
    story.pass_on(3, Join, 1)
    story.prepare(1, 2)
    story.pass_on(1, Accept, 2)
    story.pass_on(2, Accepted, 1)
    story.pass_on(1, Decided, 2, 3)
    assert set(story.views.values()) == {(0, (0, 1, 2)), (1, (1, 2, 3))}
    story.lose_all()
    story.end(1, 2)
    story.deaths = [(death, None) for death, _ in story.deaths]
    for node in (0, 3):
        story.hear_of_deaths(node)
    return story


def voter_that_has_left(machine: type[Agreement]) -> Story:
    """0 and another decide on a view without that one, which joins again; the third does not hear of it, and asks."""
    story = Story(3, machine)
    story.joining_again = story.left_out = 1.0
    story.want_change(0)
    story.prepare(0, 1, 2)
    (leaving,) = {1, 2}.difference(story.values[-1].members)
    story.pass_on(0, Accept, leaving)
    story.pass_on(leaving, Accepted, 0)
    story.pass_on(0, Excluded, leaving)
    story.lose_all()
    story.end(0)
    story.suspect(3 - leaving, 0, leaving)
    return story


@pytest.mark.parametrize(
    ("tell", "planted"),
    [
        (higher_ballot_of_the_dead, CountsDeathsAtOnce),
        (lower_ballot_of_the_living, KeepsItsBallot),
        (lowest_of_two_accepted, TakesLowestAccepted),
        (joiner_of_the_dead, TheirViewIsForgotten),
        (voter_that_has_left, VotesAfterLeaving),
    ],
)
def test_what_chance_rarely_finds(tell: Callable[[type[Agreement]], Story], planted: type[Agreement]) -> None:
    story = tell(Agreement)
    story.settle()
    assert len(story.adopted) >= 1
    with pytest.raises(ViolationError):
        tell(planted).settle()
