"""Members that are left out of a view and ask to join again, as the same process: what they and others make of it."""

from __future__ import annotations

from skippipe.survival.messages import Accept, Accepted, Decided, Excluded
from tests.survival.faults import Torture
from tests.survival.story import Story


def test_nobody_waits_for_a_member_that_has_left() -> None:
    story = Story(6)
    story.joining_again = 1.0
    story.suspect(0, 5)
    story.prepare(0, 1, 2, 3)
    story.prepare(0, 4)
    story.pass_on(0, Accept, 1, 2, 3)
    for node in (1, 2, 3):
        story.pass_on(node, Accepted, 0)
    story.do(0, lambda machine, now: machine.trust(5, now))
    # Node 0 is cut off before anyone but the one that is left out hears what was decided.
    story.pass_on(0, Excluded, 5)
    story.lose_all()
    story.sides[0] = 1
    assert story.views[5] == (-1, ())
    for node in range(1, 6):
        story.suspect(node, 0)
    story.wait(1)
    story.settle()
    assert {story.views[node] for node in (1, 2, 3, 4)} == {(2, (1, 2, 3, 4))}
    story.wait(5)
    story.settle()
    story.want_change(1)
    story.settle()
    assert {story.views[node] for node in (1, 2, 3, 4, 5)} == {(3, (1, 2, 3, 4, 5))}


def test_what_names_a_member_comes_after_what_says_that_it_was_left_out_later() -> None:
    story = Story(4)
    story.joining_again = 1.0
    story.want_change(0)
    story.prepare(0, 1, 2, 3)
    story.pass_on(0, Accept, 1, 2)
    for node in (1, 2):
        story.pass_on(node, Accepted, 0)
    story.pass_on(0, Decided, 1, 2)
    late = next(entry for entry in story.under_way if entry[1] == 3 and isinstance(entry[2], Decided))
    story.lose_all()
    story.suspect(0, 3)
    story.prepare(0, 1, 2)
    story.pass_on(0, Accept, 1, 2)
    for node in (1, 2):
        story.pass_on(node, Accepted, 0)
    story.do(0, lambda machine, now: machine.trust(3, now))
    story.pass_on(0, Excluded, 3)
    story.deliver(*late)
    assert story.views[3] == (-1, ())
    story.settle()
    story.wait(3)
    story.settle()
    story.want_change(0)
    story.settle()
    assert set(story.views.values()) == {(3, (0, 1, 2, 3))}


def test_what_a_member_suspected_is_forgotten_with_the_view() -> None:
    story = Story(4)
    story.joining_again = 1.0
    story.suspect(0, 3)
    story.suspect(3, 1)
    story.lose_all()
    story.wait(0)
    story.settle()
    story.do(0, lambda machine, now: machine.trust(3, now))
    story.settle()
    assert story.views[3] == (-1, ())
    story.want_change(0)
    story.settle()
    assert set(story.views.values()) == {(2, (0, 1, 2, 3))}
    for node in range(4):
        story.wait(node)
    story.settle()
    assert set(story.views.values()) == {(2, (0, 1, 2, 3))}


def test_a_process_that_comes_in_again_is_not_left_out_for_what_was_suspected_before() -> None:
    story = Story(4)
    story.joining_again = 1.0
    story.suspect(0, 3)
    story.suspect(1, 3)
    story.lose_all()
    story.wait(0)
    story.settle()
    assert story.views[3] == (-1, ())
    story.wait(3)
    story.settle()
    story.want_change(0)
    story.settle()
    for node in range(4):
        story.wait(node)
    story.settle()
    assert set(story.views.values()) == {(2, (0, 1, 2, 3))}
    story.suspect(0, 3)
    story.settle()
    assert {story.views[node] for node in range(3)} == {(3, (0, 1, 2))}


def test_a_member_left_alone_hears_of_the_newer_view_from_who_has_left_for_it() -> None:
    # All others of that view die before they can tell it; the left one had told it once, and that was lost.
    Torture(60_140).run()
