"""Locations and the links between them, read from configs/networks/*.yaml and spread over nodes."""

from __future__ import annotations

import dataclasses
import difflib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from skippipe.config import shipped_file
from skippipe.errors import UserError, shown
from skippipe.fields import read_yaml
from skippipe.schedule.arrays import Floats
from skippipe.schedule.costs import Queueing, Rates

COMPUTE, LOSS = "compute_seconds_per_sample_layer", "loss_seconds_per_sample"
"""Fields that hold one number, or one a location."""
MAY_BE_ZERO = {"hop_fixed_s", "task_gap_s"}
FIELDS = {"name", "base", "locations", "links", "same_location", "default", "subsets", "queueing", COMPUTE, LOSS}
FIELDS |= {entry.name for entry in dataclasses.fields(Rates)}
MOST_LOCATIONS = 10_000


@dataclass(frozen=True)
class Network:
    """Named locations with one-way latency (ms) and bandwidth (GiB/s) between each pair; NaN if no link is known."""

    name: str
    locations: tuple[str, ...]
    latency_ms: Floats
    bandwidth_gib_s: Floats
    compute_seconds_per_sample_layer: tuple[float, ...]
    loss_seconds_per_sample: tuple[float, ...] | None
    """Loss at each location; None if it is a share of forward, rates.loss_factor."""
    rates: Rates
    queueing: Queueing
    """What messages on these links wait for."""
    subsets: dict[str, tuple[str, ...]]

    def spread(self, nodes: int, subset: str | None = None) -> tuple[str, ...]:
        """Locations of `nodes` nodes: round and round over the subset (by default all locations) in its order."""
        chosen = self.locations
        if subset is not None:
            if subset not in self.subsets:
                known = ", ".join(self.subsets) or "none"
                raise UserError(f"network {self.name} has no subset {subset!r}; known subsets: {known}")
            chosen = self.subsets[subset]
        return tuple(chosen[node % len(chosen)] for node in range(nodes))

    def between(self, node_locations: tuple[str, ...]) -> tuple[Floats, Floats]:
        """Latency (ms) and bandwidth (GiB/s) between nodes at these locations, each (nodes, nodes).

        Raises UserError for an unknown location or a pair without a link.
        """
        index = {name: i for i, name in enumerate(self.locations)}
        for name in node_locations:
            if name not in index:
                near = difflib.get_close_matches(name, self.locations, 1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(self.locations[:20])}"
                raise UserError(f"network {self.name} has no location {name!r}; {hint}")
        rows = np.array([index[name] for name in node_locations])
        latency, bandwidth = self.latency_ms[np.ix_(rows, rows)], self.bandwidth_gib_s[np.ix_(rows, rows)]
        missing = np.argwhere(np.isnan(latency))
        if len(missing):
            a, b = (node_locations[i] for i in missing[0])
            raise UserError(f"network {self.name}: no link between {a} and {b}; add `- [{a}, {b}, ms, GiB/s]` to links")
        return latency, bandwidth

    def compute_seconds(self, node_locations: tuple[str, ...]) -> Floats:
        """Seconds per sample and layer of a forward pass on each node, (nodes,)."""
        return self.at(node_locations, self.compute_seconds_per_sample_layer)

    def loss_seconds(self, node_locations: tuple[str, ...]) -> Floats | None:
        """Seconds per sample of the loss on each node, (nodes,); None if it is a share of forward."""
        per_location = self.loss_seconds_per_sample
        return None if per_location is None else self.at(node_locations, per_location)

    def at(self, node_locations: tuple[str, ...], per_location: tuple[float, ...]) -> Floats:
        """What each node has of something given for each location, (nodes,)."""
        index = {name: i for i, name in enumerate(self.locations)}
        return np.array([per_location[index[name]] for name in node_locations])


def find_network(name: str) -> Path:
    """Path of a network: a YAML file, or the name of one of those that are shipped (configs/networks)."""
    return shipped_file("network", name, ".yaml")


def load_network(path: Path) -> Network:
    """Read a network file.

    Fields: name, locations, links ([a, b, latency ms, GiB/s] each, symmetric), same_location and default
    ({latency_ms, bandwidth_gib_s}), subsets, compute_seconds_per_sample_layer and loss_seconds_per_sample (one number,
    or one a location), those of Rates, queueing (none, link or uplink), and `base`: another network's file beside this
    one, whose fields this one overrides (links are added to its links). Rates not given are the original's.
    Raises UserError that names the file, the field and the remedy.
    """
    document = read_yaml(path)
    if "base" in document:
        base = read_yaml(path.parent / f"{document['base']}.yaml")
        links = checked_list(base, "links", path) + checked_list(document, "links", path)
        document = {**base, **document, "links": links}
    for field in document:
        if field not in FIELDS:
            raise UserError(f"{path}: no field {field}; known fields: {', '.join(sorted(FIELDS))}")
    locations = checked_list(document, "locations", path)
    if not locations or not all(isinstance(name, str) for name in locations):
        raise UserError(f"{path}: locations must be a list of names")
    if len(locations) > MOST_LOCATIONS:
        raise UserError(f"{path}: locations has {len(locations)} names; at most {MOST_LOCATIONS} are supported")
    if len(set(locations)) != len(locations):
        twice = next(name for name in locations if locations.count(name) > 1)
        raise UserError(f"{path}: locations names {twice} twice")
    latency, bandwidth = link_matrices(document, locations, path)
    return Network(
        name=str(document.get("name", path.stem)),
        locations=tuple(locations),
        latency_ms=latency,
        bandwidth_gib_s=bandwidth,
        compute_seconds_per_sample_layer=seconds_table(document.get(COMPUTE, 0.055), COMPUTE, locations, path),
        loss_seconds_per_sample=seconds_table(document[LOSS], LOSS, locations, path) if LOSS in document else None,
        rates=rates_of(document, path),
        queueing=queueing_of(document, path),
        subsets=subset_table(document, locations, path),
    )


def link_matrices(document: dict[str, Any], locations: list[str], path: Path) -> tuple[Floats, Floats]:
    """Latency and bandwidth matrices of a network document, NaN if neither a link nor a default is given."""
    size = len(locations)
    latency, bandwidth = np.full((size, size), np.nan), np.full((size, size), np.nan)
    if "default" in document:
        latency[:], bandwidth[:] = link_pair(document, "default", path)
    if "same_location" in document:
        same = link_pair(document, "same_location", path)
        np.fill_diagonal(latency, same[0])
        np.fill_diagonal(bandwidth, same[1])
    index = {name: i for i, name in enumerate(locations)}
    for row, link in enumerate(checked_list(document, "links", path)):
        where = f"{path}: links[{row}]"
        if not isinstance(link, list) or len(link) != 4:
            raise UserError(f"{where} must be [location, location, latency ms, bandwidth GiB/s], not {str(link)[:80]}")
        for end in link[:2]:
            if not isinstance(end, str) or end not in index:
                raise UserError(f"{where} names {str(end)[:40]!r}, which is not in locations")
        a, b = index[link[0]], index[link[1]]
        latency[a, b] = latency[b, a] = number(link[2], f"{where} latency", smallest=0.0)
        bandwidth[a, b] = bandwidth[b, a] = number(link[3], f"{where} bandwidth", smallest=1e-9)
    return latency, bandwidth


def link_pair(document: dict[str, Any], field: str, path: Path) -> tuple[float, float]:
    """The latency and bandwidth of a {latency_ms, bandwidth_gib_s} field."""
    value = document[field]
    if not isinstance(value, dict) or set(value) != {"latency_ms", "bandwidth_gib_s"}:
        raise UserError(f"{path}: {field} must be {{latency_ms: .., bandwidth_gib_s: ..}}")
    return (
        number(value["latency_ms"], f"{path}: {field}.latency_ms", smallest=0.0),
        number(value["bandwidth_gib_s"], f"{path}: {field}.bandwidth_gib_s", smallest=1e-9),
    )


def rates_of(document: dict[str, Any], path: Path) -> Rates:
    """The rates that a network document gives; the others are the original's."""
    names = [entry.name for entry in dataclasses.fields(Rates) if entry.name in document]
    return Rates(
        **{name: number(document[name], f"{path}: {name}", 0.0 if name in MAY_BE_ZERO else 1e-9) for name in names}
    )


def queueing_of(document: dict[str, Any], path: Path) -> Queueing:
    """What a network document says that messages wait for; nothing if it says nothing."""
    value = document.get("queueing", "none")
    if value not in get_args(Queueing):
        raise UserError(f"{path}: queueing must be one of {', '.join(get_args(Queueing))}, not {shown(value)}")
    return cast(Queueing, value)


def seconds_table(value: Any, field: str, locations: list[str], path: Path) -> tuple[float, ...]:
    """Seconds for each location; one number stands for all of them."""
    if isinstance(value, dict):
        for name in locations:
            if name not in value:
                raise UserError(f"{path}: {field} has no entry for location {name}")
        return tuple(number(value[name], f"{path}: {field}.{name}", smallest=1e-12) for name in locations)
    return (number(value, f"{path}: {field}", smallest=1e-12),) * len(locations)


def subset_table(document: dict[str, Any], locations: list[str], path: Path) -> dict[str, tuple[str, ...]]:
    """Named lists of locations."""
    subsets = document.get("subsets", {})
    if not isinstance(subsets, dict):
        raise UserError(f"{path}: subsets must be a mapping of names to lists of locations")
    for name, members in subsets.items():
        if not isinstance(members, list) or not members or any(member not in locations for member in members):
            raise UserError(f"{path}: subsets.{name} must be a list of names from locations")
    return {str(name): tuple(members) for name, members in subsets.items()}


def checked_list(document: dict[str, Any], field: str, path: Path) -> list[Any]:
    """A field that must be a list if it is given."""
    value = document.get(field, [])
    if not isinstance(value, list):
        raise UserError(f"{path}: {field} must be a list, not {shown(value)}")
    return value


def number(value: Any, where: str, smallest: float) -> float:
    """A finite number that is at least `smallest`, or a UserError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < smallest:
        raise UserError(f"{where} must be a number of at least {smallest:g}, not {shown(value)}")
    return float(value)
