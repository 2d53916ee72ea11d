"""Schedule files: they round-trip byte for byte, and a broken or hostile one gives one clear error, quickly."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skippipe.config import CONFIGS
from skippipe.errors import UserError
from skippipe.schedule import Schedule
from skippipe.schedule.costs import Queueing
from tests.small_schedule import small_schedule

ORIGINAL = CONFIGS / "schedules/original-20-nodes.json"
TEXT = small_schedule().to_json()


def refused(text: str) -> str:
    """The message that a text is refused with: one statement, within a second (five for a slow, busy machine)."""
    begin = time.process_time()
    with pytest.raises(UserError) as caught:
        Schedule.from_json(text, "broken.json")
    assert time.process_time() - begin < 5.0
    message = str(caught.value)
    assert message.startswith("broken.json: ")
    assert len(message.splitlines()[0]) < 400
    return message


def edited(change: Callable[[dict[str, Any]], object]) -> str:
    document = json.loads(TEXT)
    change(document)
    return json.dumps(document)


def plan(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["settings"]["ca-partial"]
    return found


def test_round_trip_byte_for_byte(tmp_path: Path) -> None:
    small_schedule().save(tmp_path / "s.json")
    loaded = Schedule.load(tmp_path / "s.json")
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "s.json").read_bytes() == TEXT.encode()


@pytest.mark.parametrize("queueing", ["link", "uplink"])
def test_what_messages_wait_for_is_kept(queueing: Queueing) -> None:
    small = small_schedule()
    schedule = small.with_costs(small.costs.with_queueing(queueing, np.full((small.nodes, small.nodes), 0.15)))
    again = Schedule.from_json(schedule.to_json())
    assert again.to_json() == schedule.to_json()
    for name, values in schedule.costs.arrays._asdict().items():
        np.testing.assert_array_equal(getattr(again.costs.arrays, name), values)
    for setting, plan in small.settings.items():
        assert again.plan(setting).expected_step_s >= plan.expected_step_s
        assert again.simulate(setting).step_s == pytest.approx(again.plan(setting).expected_step_s)
    assert again.plan("ca-partial").expected_step_s > small.plan("ca-partial").expected_step_s


def test_the_originals_file_becomes_ours() -> None:
    schedule = Schedule.load(ORIGINAL)
    assert schedule.settings["ca-partial"].expected_iteration_s == pytest.approx(33.354, abs=1e-3)
    assert schedule.settings["ca-partial"].expected_step_s == pytest.approx(47.421, abs=1e-3)
    text = schedule.to_json()
    assert Schedule.from_json(text).to_json() == text


# What is changed in the file, and what the message must say.
HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "other format": (lambda d: d.update(format="x"), "create_schedule.py"),
    "version as text": (lambda d: d.update(version="2"), "version"),
    "no costs": (lambda d: d.pop("costs"), "costs"),
    "unknown field": (lambda d: d.update(extra=1), "extra"),
    "settings a list": (lambda d: d.update(settings=[]), "settings"),
    "no settings": (lambda d: d.update(settings={}), "settings is empty"),
    "negative forward": (lambda d: d["costs"]["forward_s"].__setitem__(0, -1.0), "costs.forward_s"),
    "forward as text": (lambda d: d["costs"]["forward_s"].__setitem__(0, "1"), "costs.forward_s"),
    "huge whole number": (lambda d: d["costs"]["forward_s"].__setitem__(0, 10**400), "costs.forward_s"),
    "negative hop": (lambda d: d["costs"]["hop_s"][1].__setitem__(0, -0.5), r"costs.hop_s\[1\]"),
    "short row": (lambda d: d["costs"]["hop_s"][2].pop(), r"hop_s\[2\] has 5 entries"),
    "zero bandwidth": (lambda d: d["network"]["bandwidth_gib_s"][0].__setitem__(1, 0.0), "bandwidth_gib_s"),
    "location a number": (lambda d: d["network"]["locations"].__setitem__(0, 3), "locations"),
    "million nodes": (lambda d: d["network"].update(locations=["x"] * 10**6), "1000000 nodes"),
    "stage of a million": (lambda d: plan(d)["stages"].__setitem__(0, [0] * 10**6), "1000000 entries"),
    "many microbatches": (lambda d: plan(d).update(microbatches=[{"id": 0, "path": [0]}] * 10**5), "100000 entries"),
    "memory true": (lambda d: d["pipeline"].update(memory=True), "pipeline.memory"),
    "memory zero": (lambda d: d["pipeline"].update(memory=0), "pipeline.memory"),
    "encoding of nobody": (
        lambda d: d["pipeline"].update(sync_encoding="fp8"),
        "pipeline.sync_encoding must be one of",
    ),
    "encoding a list": (lambda d: d["pipeline"].update(hop_encoding=["bf16"]), "pipeline.hop_encoding"),
    "path too long": (lambda d: d["pipeline"].update(path_length=9), "path_length 9"),
    "stages don't agree": (lambda d: d["pipeline"].update(stages=4), "lists 3 stages"),
    "node twice": (lambda d: plan(d)["stages"][1].append(0), "node 0 is in stages 0 and 1"),
    "node nowhere": (lambda d: plan(d)["stages"][1].pop(), "node 3"),
    "node of nobody": (lambda d: plan(d)["stages"][1].append(77), "node 77"),
    "empty stage": (lambda d: plan(d)["stages"].__setitem__(1, []), "stage 1 has no node"),
    "path from elsewhere": (lambda d: plan(d)["microbatches"][0].update(path=[2, 4]), "stage-0 node"),
    "path of text": (lambda d: plan(d)["microbatches"][0].update(path=["0", 2]), "path"),
    "path empty": (lambda d: plan(d)["microbatches"][0].update(path=[]), "empty"),
    "ids jump": (lambda d: plan(d)["microbatches"][0].update(id=7), "id is 7"),
    "no microbatch": (lambda d: plan(d).update(microbatches=[]), "microbatches is empty"),
    "uneven visits": (lambda d: plan(d)["microbatches"][0].update(path=[0, 4]), "unevenly"),
    "order of text": (lambda d: plan(d)["order"].update({"0": "F0"}), "order of node 0"),
    "no task": (lambda d: plan(d)["order"]["0"].__setitem__(0, "X0"), "'X0' is no task"),
    "task twice": (lambda d: plan(d)["order"]["0"].append(plan(d)["order"]["0"][0]), "repeats task"),
    "task missing": (lambda d: plan(d)["order"]["2"].pop(), "misses task"),
    "foreign task": (lambda d: plan(d)["order"]["2"].append("F5000"), "F5000"),
    "node name": (lambda d: plan(d)["order"].update({"²": []}), "no node's number"),
    "negative sync": (lambda d: plan(d)["sync_s"].__setitem__(0, -1), "sync_s"),
    "endless sync": (lambda d: plan(d)["sync_s"].__setitem__(0, 10**400), "sync_s"),
    "wrong time": (lambda d: plan(d).update(expected_iteration_s=1e-3), "expected_iteration_s"),
    "search a list": (lambda d: plan(d).update(search=[]), "search"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_edits_are_named(case: str) -> None:
    change, expected = HOSTILE[case]
    message = refused(edited(change))
    assert re.search(expected, message), message


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "null", "[]", "{}", '"1"', "true"])
def test_values_that_are_no_times(value: str) -> None:
    text = re.sub(r'("task_gap_s": )[^,]*', rf"\g<1>{value}", TEXT)
    assert text != TEXT
    assert "task_gap_s" in refused(text) or "not a number" in refused(text)


def test_cycle_of_waiting_is_shown() -> None:
    def swap_round(document: dict[str, Any]) -> None:
        for node, order in plan(document)["order"].items():
            tasks = [task for task in order if task[0] != "B"]
            document["settings"]["ca-partial"]["order"][node] = [task for task in order if task[0] == "B"] + tasks

    message = refused(edited(swap_round))
    assert "waits for ever" in message
    assert "[B" in message


def test_memory_is_kept_in_the_order() -> None:
    message = refused(edited(lambda document: document["pipeline"].update(memory=1)))
    assert "memory is 1" in message


@pytest.mark.parametrize(
    "text",
    [
        *["", "{", "null", "[]", "7", '"text"', "[" * 200_000, '{"a":' * 200_000, "\0", "9" * 5_000],
        *['{"settings": {}}', '{"ca-paths": 1, "delays": 2}', '{"ca-paths": {}, "delays": [], "partitions": [[0]]}'],
    ],
    ids=range(13),
)
def test_what_is_no_schedule(text: str) -> None:
    refused(text)


@pytest.mark.parametrize("stop", range(0, 100, 7))
def test_truncated_files(stop: int) -> None:
    refused(TEXT[: len(TEXT) * stop // 100])


def test_binary_missing_and_folder(tmp_path: Path) -> None:
    binary = tmp_path / "binary.json"
    binary.write_bytes(bytes(range(256)))
    for path in (binary, tmp_path, tmp_path / "nothing.json"):
        with pytest.raises(UserError, match=re.escape(str(path))):
            Schedule.load(path)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where each value of a document stands."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(leaf for key, item in inner for leaf in leaves(item, (*path, key)))]


ODD_VALUES = st.one_of(
    *[st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(), st.text(max_size=5)],
    st.sampled_from([[], {}, [[[]]], [0] * 10, {"0": ["F0"]}]),
)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_edit_is_read_or_refused(data: st.DataObject) -> None:
    """Whatever stands in one place of a file of ours: an error in one line or a schedule, never another exception."""
    read_edited(TEXT, PLACES, data)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_edit_of_the_originals_is_read_or_refused(data: st.DataObject) -> None:
    read_edited(ORIGINAL_TEXT, ORIGINAL_PLACES, data)


def read_edited(text: str, places: list[tuple[Any, ...]], data: st.DataObject) -> None:
    document = json.loads(text)
    path = data.draw(st.sampled_from(places))
    target = document
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = data.draw(ODD_VALUES)
    message = "edited.json: "
    try:
        Schedule.from_json(json.dumps(document), "edited.json")
    except UserError as error:
        message = str(error)
    assert message.startswith("edited.json: ")


ORIGINAL_TEXT = ORIGINAL.read_text()
PLACES = leaves(json.loads(TEXT))[1:]
ORIGINAL_PLACES = [path for path in leaves(json.loads(ORIGINAL_TEXT))[1:] if path[0] != "delays"] + [("delays",)]


def test_optional_fields_come_back_and_are_written_only_if_used() -> None:
    schedule = small_schedule()
    for name in ("loss_s", "feed_forward", "head_bytes", "hop_encoding", "sync_encoding"):
        assert f'"{name}"' not in schedule.to_json()
    loss_s = np.linspace(0.1, 0.2, schedule.nodes)
    pipeline = dataclasses.replace(schedule.pipeline, feed_forward=200, head_bytes=77, hop_encoding="bf16")
    changed = schedule.with_costs(dataclasses.replace(schedule.costs, measured_loss_s=loss_s), pipeline)
    again = Schedule.from_json(changed.to_json())
    assert again.to_json() == changed.to_json()
    assert again.costs.loss_s.tolist() == loss_s.tolist()
    assert again.pipeline == pipeline
    assert (again.pipeline.hidden_width, again.pipeline.sync_bytes[0]) == (200, schedule.pipeline.stage_bytes + 77)
    with pytest.raises(UserError, match="loss_s"):
        Schedule.from_json(changed.to_json().replace('"loss_s": [0.1', '"loss_s": [-0.1'))
