"""The agreement on views, one story at a time."""

from __future__ import annotations

import dataclasses
import math

import pytest

from skippipe.survival.messages import Accept, Accepted, Ask, Decided, Excluded, Join, Prepare, Reject
from tests.survival.process import Process
from tests.survival.simulation import PATIENCE_S
from tests.survival.story import LATER, Story


def test_one_death_of_three_makes_a_view_of_two() -> None:
    story = Story(3)
    story.end(1)
    story.suspect(0, 1)
    story.settle()
    assert story.views == {0: (1, (0, 2)), 2: (1, (0, 2))}


def test_any_number_may_die_if_their_deaths_are_certain() -> None:
    story = Story(5)
    story.end(0, 1, 2, 4)
    story.suspect(3, 0, 1, 2, 4)
    assert story.views == {3: (0, (0, 1, 2, 3, 4))}
    story.hear_of_deaths(3)
    assert story.views == {3: (1, (3,))}


@pytest.mark.parametrize("nodes", [2, 4, 5])
def test_a_minority_that_only_suspects_says_so_once(nodes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    monkeypatch.setattr(Process, "no_majority", lambda process, *sides: said.append(sides))
    story = Story(nodes)
    reachable = tuple(range(nodes // 2))
    story.sides = {node: node in reachable for node in range(nodes)}
    for node in reachable:
        story.suspect(node, *range(nodes // 2, nodes))
    story.settle()
    start = story.now
    assert story.machine_of(0).next_tick <= start + PATIENCE_S
    story.wait(0, PATIENCE_S - 0.1)
    assert said == []
    story.wait(0, 0.1)
    story.wait(0)
    assert said == [(reachable, tuple(range(nodes)))]
    assert all(number == 0 for number, _ in story.views.values())


def test_a_change_at_leisure_becomes_urgent() -> None:
    story = Story(4)
    story.want_change(0)
    story.prepare(0, 1, 2)
    assert not story.processes[1].is_frozen
    story.suspect(0, 3)
    assert not story.kinds(0, 1) & {Accept}
    story.prepare(0, 1, 2)
    assert story.processes[1].is_frozen
    story.settle()
    assert story.views[1] == (1, (0, 1, 2))
    assert story.values[-1].reports == {0: (True, 0), 1: (True, 0), 2: (True, 0)}


def test_a_member_that_is_not_the_proposer_asks_it() -> None:
    story = Story(3)
    story.want_change(2)
    assert story.kinds(2, 0) == {Ask}
    assert not story.kinds(2, 1)
    story.settle()
    assert set(story.views.values()) == {(1, (0, 1, 2))}


def test_what_is_lost_is_sent_again() -> None:
    story = Story(3)
    story.want_change(0)
    for kind in (Prepare, Accept):
        story.lose_all()
        story.wait(0)
        assert story.kinds(0, 1) == {kind}
        if kind is Prepare:
            story.prepare(0, 1, 2)
    story.pass_on(0, Accept, 1)
    story.pass_on(1, Accepted, 0)
    assert story.kinds(0, 2) == {Accept, Decided}
    story.lose_all()
    assert story.views == {0: (1, (0, 1, 2)), 1: (0, (0, 1, 2)), 2: (0, (0, 1, 2))}
    for node in (1, 2):
        story.wait(node)
    story.settle()
    assert set(story.views.values()) == {(1, (0, 1, 2))}
    assert all(story.machine_of(node).next_tick == math.inf for node in range(3))


def test_a_dead_proposers_proposal_is_carried_on() -> None:
    story = Story(5)
    story.suspect(0, 4)
    story.prepare(0, 1, 2, 3)
    story.pass_on(0, Accept, 1)
    story.lose_all()
    story.end(0)
    story.suspect(1, 0, 4)
    story.wait(1)
    story.settle()
    assert dict(story.adopted[1].proposal.members).keys() == {0, 1, 2, 3}
    assert story.views[1] == story.views[2] == (2, (1, 2, 3))


def test_who_is_left_out_hears_of_it_and_joins_as_another() -> None:
    story = Story(4)
    story.suspect(0, 3)
    story.prepare(0, 1, 2)
    story.lose_all()
    story.wait(0)
    story.settle()
    assert story.views[0] == (1, (0, 1, 2))
    assert not story.kinds(0, 3)
    story.do(0, lambda machine, now: machine.trust(3, now))
    assert story.kinds(0, 3) == {Excluded}
    story.settle()
    former = story.processes[3]
    assert former.machine.is_excluded
    assert former.machine.next_tick == math.inf
    story.come_back(former)
    assert story.kinds(3, 0) == {Join}
    story.settle()
    assert story.processes[0].joiners == {3}
    story.want_change(0)
    story.settle()
    assert set(story.views.values()) == {(2, (0, 1, 2, 3))}


def test_a_member_that_was_away_for_several_views_gets_the_newest() -> None:
    story = Story(4)
    story.want_change(0)
    story.settle()
    newest = story.processes[0].told
    assert newest is not None
    for number in (2, 3):
        story.values.append(dataclasses.replace(story.values[-1], view=number - 1))
        proposal = dataclasses.replace(newest.proposal, value=b"%d" % (len(story.values) - 1))
        for node in (0, 1, 2):
            story.deliver(3, node, Decided(number, proposal))
    story.now += LATER
    story.want_change(0)
    story.pass_on(0, Prepare, 3)
    assert story.kinds(3, 0) == {Ask}
    story.settle()
    assert set(story.views.values()) == {(3, (0, 1, 2, 3))}
    story.wait(0)
    story.settle()
    assert set(story.views.values()) == {(4, (0, 1, 2, 3))}


def test_a_restarted_member_is_dead_and_a_joiner_at_once() -> None:
    story = Story(3)
    story.end(2)
    story.start_again(2)
    assert story.machine_of(2).birth == 1
    story.settle()
    assert set(story.views.values()) == {(1, (0, 1, 2))}
    assert story.machine_of(0).births == {0: 0, 1: 0, 2: 1}


def test_a_process_does_not_take_the_place_of_the_one_before_it() -> None:
    story = Story(3)
    story.want_change(0)
    story.prepare(0, 1, 2)
    story.pass_on(0, Accept, 1)
    story.pass_on(1, Accepted, 0)
    story.end(2)
    story.start_again(2)
    story.pass_on(0, Decided, 2)
    assert story.views[2] == (-1, ())


def test_a_value_that_is_not_sound_is_refused_and_the_others_go_on() -> None:
    story = Story(4)
    story.processes[3].acceptable = lambda value: False  # type: ignore[method-assign]
    story.want_change(0)
    story.prepare(0, 1, 2, 3)
    story.pass_on(0, Accept, 3)
    assert story.kinds(3, 0) == {Reject}
    story.settle()
    assert story.views[2] == (1, (0, 1, 2, 3))


def test_what_the_dead_had_adopted_comes_from_their_launcher() -> None:
    story = Story(4)
    story.end(3)
    story.hear_of_deaths(0)
    story.prepare(0, 1, 2)
    story.pass_on(0, Accept, 1, 2)
    story.pass_on(1, Accepted, 0)
    story.pass_on(2, Accepted, 0)
    assert story.machine_of(0).number == 1
    story.lose_all()
    story.end(0)
    # Two of four: neither a majority nor all whose knowledge has not died.
    decided = story.deaths.pop()
    story.deaths.append((decided[0], None))
    for node in (1, 2):
        story.hear_of_deaths(node)
        story.wait(node)
    story.settle()
    assert {number for number, _ in story.views.values()} == {0}
    story.deaths[-1] = decided
    for node in (1, 2):
        story.hear_of_deaths(node)
    story.settle()
    assert set(story.views.values()) == {(2, (1, 2))}
