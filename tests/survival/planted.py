"""Agreements and next views with a bug each: what the tests must find out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from skippipe.survival.agreement import Agreement
from skippipe.survival.course import Course, Report
from skippipe.survival.following import next_view
from skippipe.survival.messages import MOST_NUMBER, Accept, Decided, Message, Prepare, Promise, Proposal
from skippipe.survival.view import View


class AnyQuorum(Agreement):
    """Whoever has answered may decide."""

    def is_quorum(self, responders: Iterable[int], dead: frozenset[int]) -> bool:
        return True


class HalfQuorum(Agreement):
    """Half of the members may decide."""

    def is_quorum(self, responders: Iterable[int], dead: frozenset[int]) -> bool:
        responders = set(responders)
        return 2 * len(responders) >= len(self.births) or super().is_quorum(responders, dead)


class PromisesLower(Agreement):
    """A promise does not bind against lower ballots."""

    def take_prepare(self, sender: int, message: Prepare) -> None:
        self.promised = min(self.promised, message.ballot)
        super().take_prepare(sender, message)

    def take_accept(self, sender: int, message: Accept) -> None:
        self.promised = min(self.promised, message.ballot)
        super().take_accept(sender, message)


class ForgetsAccepted(Agreement):
    """Nobody says what was accepted."""

    def take_accept(self, sender: int, message: Accept) -> None:
        super().take_accept(sender, message)
        self.accepted = None


class TakesLowestAccepted(Agreement):
    """A proposer takes the proposal of the lowest ballot that was accepted."""

    def take_promise(self, sender: int, message: Promise) -> None:
        if message.accepted is not None:
            message = dataclasses.replace(message, accepted=(-message.accepted[0], message.accepted[1]))
        super().take_promise(sender, message)


class SuspectedAreDead(Agreement):
    """Suspicion is taken for death."""

    def counted_dead(self) -> frozenset[int]:
        return super().counted_dead() | (self.births.keys() & self.standing.suspected)


class TheirViewIsForgotten(Agreement):
    """A death counts even if the dead had begun a newer view."""

    def counted_dead(self) -> frozenset[int]:
        return self.standing.took_nothing_along(self.births, MOST_NUMBER)


class RestartedAreDead(Agreement):
    """A member counts as dead because a later process of its node asks to join."""

    def counted_dead(self) -> frozenset[int]:
        return frozenset(self.standing.gone(self.births))


class CountsDeathsAtOnce(Agreement):
    """A death counts in the ballot that runs."""

    def is_quorum(self, responders: Iterable[int], dead: frozenset[int]) -> bool:
        return super().is_quorum(responders, self.counted_dead())


class KeepsItsBallot(Agreement):
    """A proposer goes on with its ballot though it has promised a higher one."""

    def follow(self, sender: int, ballot: int) -> None:
        own = self.ballot
        super().follow(sender, ballot)
        self.ballot = own


class ForgetsItsBirth(Agreement):
    """A process takes the place of its node's former one."""

    def take_decided(self, message: Decided) -> None:
        members = tuple((node, self.birth if node == self.node else birth) for node, birth in message.proposal.members)
        super().take_decided(Decided(message.view, Proposal(members, message.proposal.value)))


class TakesEarlyReports(Agreement):
    """What was reported at leisure counts in an urgent ballot."""

    def take_promise(self, sender: int, message: Promise) -> None:
        super().take_promise(sender, dataclasses.replace(message, urgent=True))


class VotesAfterLeaving(Agreement):
    """A member that was left out and joins again votes in the view that it was in, and knows nothing of it."""

    former = -1, dict[int, int]()

    def leave(self, number: int) -> None:
        self.former = self.number, self.births
        super().leave(number)

    def take_outside(self, sender: int, message: Message) -> None:
        number, births = self.former
        if isinstance(message, Prepare | Accept) and message.view == number and not self.is_excluded:
            self.number, self.births = number, births
            self.take_of_this_view(sender, message)
            self.number, self.births = -1, {}
        else:
            super().take_outside(sender, message)


class NewestIsBase(Course):
    """A course for whose node the newest view is at work, though it may begin only later, or never."""

    def view_of(self, iteration: int) -> View | None:
        return self.newest


def next_view_of_the_newest(course: Course, *more: Any) -> View:
    """A boundary view that is made from the newest one, even if that is passed over."""
    return next_view(NewestIsBase(**vars(course)), *more)


def takeover_of_the_newest(course: Course, reports: Mapping[int, Report], *more: Any) -> View:
    """A takeover from the newest view, whatever the iteration was running in."""
    return next_view(course, {node: dataclasses.replace(report, view=None) for node, report in reports.items()}, *more)


NEXT_VIEWS = [next_view_of_the_newest, takeover_of_the_newest]
"""Instead of next_view."""
PLANTED = [
    AnyQuorum,
    HalfQuorum,
    PromisesLower,
    ForgetsAccepted,
    SuspectedAreDead,
    RestartedAreDead,
    ForgetsItsBirth,
    TakesEarlyReports,
]
"""Found by chance within some hundred seeds each; test_rare.py tells the stories that show the others."""
