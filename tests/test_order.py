"""Tests that take longest begin first."""

from __future__ import annotations

from types import SimpleNamespace

from tests.conftest import LONGEST, TESTS, pytest_collection_modifyitems


def test_what_takes_longest_begins_first_and_the_others_keep_their_order() -> None:
    names = ["cli/test_check.py", "end_to_end/test_run.py", "end_to_end/test_stream.py", "test_rooms.py", LONGEST[0]]
    items = [SimpleNamespace(path=TESTS / name) for name in names]
    pytest_collection_modifyitems(items)
    assert [str(item.path.relative_to(TESTS)) for item in items] == [names[4], names[2], names[1], names[0], names[3]]
    assert all((TESTS / name).exists() for name in LONGEST)
