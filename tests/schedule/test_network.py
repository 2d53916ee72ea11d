"""Network files: what ships loads, and a broken one gives one clear error, quickly."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from skippipe.config import CONFIGS
from skippipe.errors import UserError
from skippipe.schedule.costs import Rates
from skippipe.schedule.network import find_network, load_network

GOOD = """
name: two
same_location: {latency_ms: 1, bandwidth_gib_s: 2}
locations: [a, b, c]
subsets: {near: [a, b]}
compute_seconds_per_sample_layer: {a: 0.1, b: 0.2, c: 0.3}
links:
  - [a, b, 10, 0.5]
  - [b, c, 20, 0.25]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "network.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", sorted((CONFIGS / "networks").glob("*.yaml")), ids=lambda path: path.stem)
def test_what_ships_loads(path: Path) -> None:
    network = load_network(path)
    latency, bandwidth = network.between(network.spread(30))
    assert np.isfinite(latency).all()
    assert (bandwidth > 0).all()
    assert (latency == latency.T).all()


def test_the_slipped_link_is_the_only_difference() -> None:
    ours, theirs = (load_network(find_network(name)) for name in ("gcp-12", "gcp-12-as-published"))
    assert ours.locations == theirs.locations
    places = np.argwhere(ours.bandwidth_gib_s != theirs.bandwidth_gib_s)
    assert {tuple(sorted(ours.locations[i] for i in place)) for place in places} == {("London", "NL")}
    assert theirs.bandwidth_gib_s.min() == 0.00023681640625


def test_nodes_spread_over_subsets(tmp_path: Path) -> None:
    network = load_network(written(tmp_path, GOOD))
    assert network.spread(4, "near") == ("a", "b", "a", "b")
    latency, bandwidth = network.between(("a", "b", "a"))
    assert latency[0].tolist() == [1, 10, 1]
    assert bandwidth[1].tolist() == [0.5, 2, 0.5]
    assert network.compute_seconds(("c", "a")).tolist() == [0.3, 0.1]
    with pytest.raises(UserError, match="no link between a and c"):
        network.between(("a", "c"))
    with pytest.raises(UserError, match="did you mean"):
        load_network(find_network("gcp-12")).between(("Belgum",))
    with pytest.raises(UserError, match="known subsets: near"):
        network.spread(2, "far")


def test_unknown_network_names_those_there_are() -> None:
    with pytest.raises(UserError, match="gcp-12"):
        find_network("gcp-13")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("locations: [a, b, c]", "locations: [a, b, a]", "names a twice"),
        ("locations: [a, b, c]", "locations: 3", "locations must be a list"),
        ("locations: [a, b, c]", "locations: []", "locations"),
        ("locations: [a, b, c]", "locations: [a, b, 7]", "locations"),
        ("locations: [a, b, c]", f"locations: [{', '.join(f'n{i}' for i in range(10_001))}]", "at most 10000"),
        ("[a, b, 10, 0.5]", "[a, b, -10, 0.5]", r"links\[0\] latency"),
        ("[a, b, 10, 0.5]", "[a, b, .nan, 0.5]", r"links\[0\] latency"),
        ("[a, b, 10, 0.5]", "[a, b, 10, 0]", r"links\[0\] bandwidth"),
        ("[a, b, 10, 0.5]", "[a, b, 10, .inf]", r"links\[0\] bandwidth"),
        ("[a, b, 10, 0.5]", "[a, b, ten, 0.5]", r"links\[0\] latency"),
        ("[a, b, 10, 0.5]", "[a, d, 10, 0.5]", r"links\[0\] names 'd'"),
        ("[a, b, 10, 0.5]", "[a, [b], 10, 0.5]", r"links\[0\] names"),
        ("[a, b, 10, 0.5]", "[a, b]", r"links\[0\] must be"),
        ("[a, b, 10, 0.5]", "a to b", r"links\[0\] must be"),
        ("{latency_ms: 1, bandwidth_gib_s: 2}", "5", "same_location"),
        ("{a: 0.1, b: 0.2, c: 0.3}", "{a: 0.1}", "no entry for location b"),
        ("{a: 0.1, b: 0.2, c: 0.3}", "-1", "compute_seconds_per_sample_layer"),
        ("{near: [a, b]}", "{near: [a, z]}", "subsets.near"),
        ("{near: [a, b]}", "{near: [[a], {b: c}]}", "subsets.near"),
        ("{near: [a, b]}", "[a]", "subsets"),
        ("name: two", "nam: two", "no field nam"),
        ("name: two", "base: nowhere", "nowhere.yaml"),
        ("name: two", "name: [two", "not valid YAML"),
        ("name: two", "name: *alias", "not valid YAML"),
        ("name: two", "deep: " + "[" * 3000, "not valid YAML"),
    ],
)
def test_broken_networks_are_named(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new))
    begin = time.process_time()
    with pytest.raises(UserError, match=expected) as caught:
        load_network(path)
    assert time.process_time() - begin < 5.0
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    for path in (tmp_path, tmp_path / "nothing.yaml", tmp_path / "binary.yaml"):
        with pytest.raises(UserError, match=path.name):
            load_network(path)


def nested(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Lists and mappings of what there is."""
    return st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_value_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    document = yaml.safe_load(GOOD)
    field = data.draw(st.sampled_from([*document, "default", "base"]))
    scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4))
    values = st.recursive(scalars, nested, max_leaves=8)
    document[field] = data.draw(values)
    path = written(tmp_path_factory.mktemp("network"), yaml.safe_dump(document))
    message = str(path)
    try:
        load_network(path)
    except UserError as error:
        message = str(error)
    assert str(path.parent) in message


RATES = "hop_fixed_s: 0.01\ntask_gap_s: 0\nbackward_factor: 2\nloss_factor: 0.5\nsync_bytes_per_parameter: 4\n"


def test_rates_are_those_of_the_file_and_else_the_originals(tmp_path: Path) -> None:
    assert load_network(written(tmp_path, GOOD)).rates == Rates(0.35, 0.13, 1.5, 0.25, 8.0)
    network = load_network(written(tmp_path, GOOD + RATES + "loss_seconds_per_sample: {a: 0.1, b: 0.2, c: 0.4}\n"))
    assert network.rates == Rates(0.01, 0.0, 2.0, 0.5, 4.0)
    assert network.loss_seconds(("c", "a")).tolist() == [0.4, 0.1]


def test_messages_wait_for_nothing_unless_the_file_says_so(tmp_path: Path) -> None:
    assert load_network(written(tmp_path, GOOD)).queueing == "none"
    assert load_network(written(tmp_path, GOOD + "queueing: uplink\n")).queueing == "uplink"


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("hop_fixed_s: -1", "hop_fixed_s must be a number of at least 0"),
        ("task_gap_s: soon", "task_gap_s must be a number"),
        ("backward_factor: 0", "backward_factor must be a number"),
        ("loss_seconds_per_sample: {a: 0.1}", "loss_seconds_per_sample has no entry for location b"),
        ("queueing: cable", "queueing must be one of none, link, uplink"),
        ("queueing: [link]", "queueing must be one of none, link, uplink"),
    ],
)
def test_bad_rates_are_named(line: str, named: str, tmp_path: Path) -> None:
    path = written(tmp_path, GOOD + line + "\n")
    with pytest.raises(UserError, match=f"{path}.*{named}"):
        load_network(path)
