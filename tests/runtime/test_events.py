"""Events reach the launcher as they were sent; anything else in its pipe is refused."""

from __future__ import annotations

import dataclasses
import json
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skippipe.report.metrics import BatchMetrics
from skippipe.runtime import events
from skippipe.runtime.events import KIND, Event, IterationLoss, Ready, decode, encode

KINDS = typing.get_args(Event)
EVENTS = st.one_of([st.from_type(kind) for kind in KINDS])


@given(EVENTS)
def test_an_event_comes_back_as_it_was_sent(event: Event) -> None:
    line = encode(event)
    back = decode(line)
    assert type(back) is type(event)
    # By its representation: a loss may be nan, which equals nothing.
    assert repr(back) == repr(event)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1


def test_every_kind_is_one_of_the_union_and_has_a_name_of_its_own() -> None:
    assert len({kind.__name__ for kind in KINDS}) == len(KINDS)
    own = {
        kind for kind in vars(events).values() if dataclasses.is_dataclass(kind) and kind.__module__ == events.__name__
    }
    assert own < set(KINDS)


@given(EVENTS, st.data())
def test_a_line_with_a_field_too_few_too_many_or_of_another_type_is_refused(event: Event, data: st.DataObject) -> None:
    document = json.loads(encode(event))
    change = data.draw(st.sampled_from(["remove", "add", "replace"]))
    name = data.draw(st.sampled_from([name for name in document if name not in ("validation_perplexity", "dropped")]))
    if change == "remove":
        del document[name]
    elif change == "add":
        document["another"] = 1
    else:
        # Another text is no mistake.
        texts = [] if isinstance(document[name], str) else ["7"]
        document[name] = data.draw(st.sampled_from([None, *texts, True, {}, [None], [[0]]]))
    with pytest.raises(ValueError, match="no event of a node"):
        decode(json.dumps(document).encode())


@given(EVENTS, st.data())
def test_a_line_that_is_cut_is_refused(event: Event, data: st.DataObject) -> None:
    line = encode(event).rstrip()
    with pytest.raises(ValueError, match="no event of a node"):
        decode(line[: data.draw(st.integers(0, len(line) - 1))])


@given(st.binary())
def test_other_bytes_are_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="no event of a node"):
        decode(line)


@pytest.mark.parametrize(
    "document",
    [[], {}, {"node": 1}, {KIND: None}, {KIND: "Event"}, {KIND: ["Ready"], "node": 1}, {KIND: "ready", "node": 1}],
)
def test_a_line_that_names_no_event_is_refused(document: object) -> None:
    with pytest.raises(ValueError, match="no event of a node"):
        decode(json.dumps(document).encode())


def test_whole_numbers_serve_as_floats_and_not_the_other_way_round() -> None:
    event = decode(b'{"event": "IterationLoss", "iteration": 0, "loss": 7}')
    assert isinstance(event, IterationLoss)
    assert isinstance(event.loss, float)
    with pytest.raises(ValueError, match=r"node can't be 1\.0"):
        decode(encode(Ready(1)).replace(b"1", b"1.0"))
    for loss in (b"1" + 400 * b"0", b"true"):
        with pytest.raises(ValueError, match="loss can't be"):
            decode(b'{"event": "IterationLoss", "iteration": 0, "loss": %s}' % loss)


def test_stages_of_a_batch_come_back_as_a_tuple() -> None:
    batch = BatchMetrics(3, 2.5, 64, (0, 2))
    assert decode(encode(batch)) == batch
