"""Schedule files: the JSON format "skippipe-schedule" version 2, every type checked, written byte for byte."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from skippipe.config import Encoding, shipped_file
from skippipe.errors import UserError, shown
from skippipe.fields import convert
from skippipe.schedule.arrays import Floats
from skippipe.schedule.content import Content
from skippipe.schedule.costs import Costs
from skippipe.schedule.original import import_original, is_original
from skippipe.schedule.plan import Pipeline, Plan, Task
from skippipe.schedule.validation import validate

FORMAT = "skippipe-schedule"
VERSION = 2
MOST_NODES = 10_000
MOST_MICROBATCHES = 50_000
MOST_SECONDS = 1e9
PIPELINE_ENCODINGS = {"hop_encoding", "sync_encoding"}
PIPELINE_OPTIONS = {"feed_forward", "head_bytes", *PIPELINE_ENCODINGS}
"""Fields of the pipeline that are written only if they are not the default."""
PLAN_FIELDS = {"stages", "microbatches", "order", "sync_s", "expected_iteration_s", "expected_step_s", "search"}
"""What the file says of each setting."""
INLINE_FROM_DEPTH = 4
"""Containers this deep are written on one line."""


def find_schedule(name: str | Path) -> Path:
    """Path of a schedule: a JSON file, or the name of one of those that are shipped (configs/schedules)."""
    return name if isinstance(name, Path) else shipped_file("schedule", name, ".json")


def read(text: str, where: str) -> Content:
    """Read and validate a schedule's text; UserError in one line, beginning with `where`."""
    try:
        document = json.loads(text, parse_constant=refuse_constant)
    except RecursionError:
        raise UserError(f"{where}: nested too deeply to be a schedule") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON (line {error.lineno}: {error.msg}); is the file truncated?") from None
    except ValueError as error:
        raise UserError(f"{where}: {str(error)[:120]}") from None
    try:
        schedule = import_original(document) if is_original(document) else from_document(document)
        validate(schedule)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return schedule


def refuse_constant(name: str) -> NoReturn:
    """JSON has no NaN and no infinities; Python's reader would let them in."""
    raise ValueError(f"has the value {name}, which is not a number")


def write(schedule: Content) -> str:
    """The text of a schedule file; a row of a matrix, a microbatch and an order list are a line each."""
    pipeline, costs = schedule.pipeline, schedule.costs
    document = {
        "format": FORMAT,
        "version": VERSION,
        "network": {
            "name": schedule.network_name,
            "locations": list(schedule.locations),
            "latency_ms": schedule.latency_ms.tolist(),
            "bandwidth_gib_s": schedule.bandwidth_gib_s.tolist(),
        },
        "pipeline": {
            entry.name: value
            for entry in dataclasses.fields(pipeline)
            if (value := getattr(pipeline, entry.name)) != entry.default
        },
        "costs": {
            "forward_s": costs.forward_s.tolist(),
            "loss_factor": costs.loss_factor,
            "backward_factor": costs.backward_factor,
            "task_gap_s": costs.task_gap_s,
            "hop_s": costs.hop_s.tolist(),
        }
        | {name: value.tolist() for name, value in cost_options(costs).items() if value is not None},
        "settings": {name: plan_document(plan) for name, plan in schedule.settings.items()},
    }
    return render(document, 0) + "\n"


def cost_options(costs: Costs) -> dict[str, Floats | None]:
    """What the costs section has only if the schedule has it."""
    return {
        "loss_s": costs.measured_loss_s,
        "link_busy_s": costs.link_busy_s,
        "uplink_busy_s": costs.uplink_busy_s,
    }


def plan_document(plan: Plan) -> dict[str, Any]:
    """One setting as plain data."""
    return {
        "stages": [list(nodes) for nodes in plan.stages],
        "microbatches": [{"id": i, "path": list(path)} for i, path in enumerate(plan.paths)],
        "order": {str(node): [str(task) for task in tasks] for node, tasks in sorted(plan.order.items())},
        "sync_s": list(plan.sync_s),
        "expected_iteration_s": plan.expected_iteration_s,
        "expected_step_s": plan.expected_step_s,
        "search": plan.search,
    }


def render(value: Any, depth: int) -> str:
    """JSON with one line for each innermost list or mapping."""
    inner = value.values() if isinstance(value, dict) else value
    flat = not isinstance(value, (dict, list)) or not any(isinstance(item, (dict, list)) for item in inner)
    if flat or depth >= INLINE_FROM_DEPTH:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    pad, end = "  " * (depth + 1), "  " * depth
    if isinstance(value, dict):
        rows = [f"{pad}{json.dumps(key, ensure_ascii=False)}: {render(item, depth + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{end}}}"
    return "[\n" + ",\n".join(pad + render(item, depth + 1) for item in value) + f"\n{end}]"


def from_document(document: Any) -> Content:
    """Build a schedule from parsed JSON, checking the type and range of every field."""
    top = section(document, "schedule", {"format", "version", "network", "pipeline", "costs", "settings"})
    if top["format"] != FORMAT or top["version"] != VERSION:
        raise UserError(
            f"format is {str(top['format'])[:40]!r} version {str(top['version'])[:20]},"
            f" expected {FORMAT!r} version {VERSION}; write the file with create_schedule.py"
        )
    network = section(top["network"], "network", {"name", "locations", "latency_ms", "bandwidth_gib_s"})
    locations = listing(network["locations"], "network.locations")
    nodes = len(locations)
    if not 0 < nodes <= MOST_NODES:
        raise UserError(f"network.locations has {nodes} nodes; between 1 and {MOST_NODES} are supported")
    if not all(isinstance(name, str) for name in locations):
        raise UserError("network.locations must hold the name of each node's location")
    settings = section(top["settings"], "settings", None)
    if not settings:
        raise UserError("settings is empty; a schedule needs at least one setting")
    return Content(
        network_name=text_field(network["name"], "network.name"),
        locations=tuple(locations),
        latency_ms=matrix(network["latency_ms"], "network.latency_ms", nodes),
        bandwidth_gib_s=matrix(network["bandwidth_gib_s"], "network.bandwidth_gib_s", nodes, smallest=1e-12),
        pipeline=pipeline_from(top["pipeline"]),
        costs=costs_from(top["costs"], nodes),
        settings={name: plan_from(value, f"setting {name}") for name, value in settings.items()},
    )


def costs_from(document: Any, nodes: int) -> Costs:
    """The costs section; loss_s only if the loss is no share of forward, the others if messages wait for each other."""
    names = {"forward_s", "loss_factor", "backward_factor", "task_gap_s", "hop_s"}
    costs = section(document, "costs", names, {"loss_s", "link_busy_s", "uplink_busy_s"})

    def busy(name: str) -> Floats | None:
        return matrix(costs[name], f"costs.{name}", nodes) if name in costs else None

    return Costs(
        forward_s=vector(costs["forward_s"], "costs.forward_s", nodes, smallest=1e-9),
        loss_factor=seconds(costs["loss_factor"], "costs.loss_factor", smallest=1e-9),
        backward_factor=seconds(costs["backward_factor"], "costs.backward_factor", smallest=1e-9),
        task_gap_s=seconds(costs["task_gap_s"], "costs.task_gap_s"),
        hop_s=matrix(costs["hop_s"], "costs.hop_s", nodes),
        measured_loss_s=vector(costs["loss_s"], "costs.loss_s", nodes, smallest=1e-12) if "loss_s" in costs else None,
        link_busy_s=busy("link_busy_s"),
        uplink_busy_s=busy("uplink_busy_s"),
    )


def pipeline_from(document: Any) -> Pipeline:
    """The pipeline section: positive whole numbers that fit each other, and names of encodings."""
    names = {entry.name for entry in dataclasses.fields(Pipeline)} - PIPELINE_OPTIONS
    fields = section(document, "pipeline", names, PIPELINE_OPTIONS)
    values: dict[str, Any] = {
        name: convert(value, Encoding, f"pipeline.{name}")
        if name in PIPELINE_ENCODINGS
        else whole_number(value, f"pipeline.{name}", smallest=1)
        for name, value in fields.items()
    }
    pipeline = Pipeline(**values)
    if not 2 <= pipeline.path_length <= pipeline.stages:
        raise UserError(f"pipeline.path_length {pipeline.path_length} must lie between 2 and stages {pipeline.stages}")
    return pipeline


def plan_from(document: Any, where: str) -> Plan:
    """One setting; whether it can be run is for Schedule.validate."""
    fields = section(document, where, PLAN_FIELDS)
    stages = []
    for i, members in enumerate(listing(fields["stages"], f"{where}: stages", MOST_NODES)):
        place = f"{where}: stages[{i}]"
        stages.append(tuple(whole_number(node, place) for node in listing(members, place, MOST_NODES)))
    paths = []
    for i, entry in enumerate(listing(fields["microbatches"], f"{where}: microbatches", MOST_MICROBATCHES)):
        microbatch = section(entry, f"{where}: microbatches[{i}]", {"id", "path"})
        if whole_number(microbatch["id"], f"{where}: microbatches[{i}].id") != i:
            raise UserError(f"{where}: microbatches[{i}].id is {microbatch['id']}; ids count up from 0 without a gap")
        path = listing(microbatch["path"], f"{where}: microbatches[{i}].path", MOST_NODES)
        if not path:
            raise UserError(f"{where}: microbatches[{i}].path is empty")
        paths.append(tuple(whole_number(node, f"{where}: microbatches[{i}].path") for node in path))
    order: dict[int, tuple[Task, ...]] = {}
    for key, tasks in section(fields["order"], f"{where}: order", None).items():
        node, place = node_key(key, f"{where}: order"), f"{where}: order of node {key}"
        order[node] = tuple(Task.parse(task, place) for task in listing(tasks, place, 3 * MOST_MICROBATCHES))
    sync = listing(fields["sync_s"], f"{where}: sync_s")
    if len(sync) != len(stages):
        raise UserError(f"{where}: sync_s has {len(sync)} entries for {len(stages)} stages")
    return Plan(
        stages=tuple(stages),
        paths=tuple(paths),
        order=order,
        sync_s=tuple(seconds(value, f"{where}: sync_s") for value in sync),
        expected_iteration_s=seconds(fields["expected_iteration_s"], f"{where}: expected_iteration_s"),
        expected_step_s=seconds(fields["expected_step_s"], f"{where}: expected_step_s"),
        search=section(fields["search"], f"{where}: search", None),
    )


def section(value: Any, where: str, names: set[str] | None, options: set[str] | None = None) -> dict[str, Any]:
    """A mapping with exactly the given fields (None: any), and any of the `options`."""
    if not isinstance(value, dict):
        raise UserError(f"{where} must be a mapping, not {type(value).__name__}")
    if names is not None:
        if missing := names - value.keys():
            raise UserError(f"{where} has no field {min(missing)}")
        if unknown := value.keys() - names - (options or set()):
            raise UserError(f"{where} has an unknown field {min(unknown)[:40]!r}")
    return value


def node_key(key: str, where: str) -> int:
    """The node that a mapping's key names."""
    if not key.isascii() or not key.isdigit() or len(key) > 9 or str(int(key)) != key:
        raise UserError(f"{where} has the key {key[:40]!r}, which is no node's number")
    return int(key)


def listing(value: Any, where: str, most: int | None = None) -> list[Any]:
    """A list, of at most `most` entries, so that a hostile file is refused before it costs time."""
    if not isinstance(value, list):
        raise UserError(f"{where} must be a list, not {type(value).__name__}")
    if most is not None and len(value) > most:
        raise UserError(f"{where} has {len(value)} entries; at most {most} are supported")
    return value


def text_field(value: Any, where: str) -> str:
    """A text."""
    if not isinstance(value, str):
        raise UserError(f"{where} must be text, not {type(value).__name__}")
    return value


def whole_number(value: Any, where: str, smallest: int = 0) -> int:
    """A whole number of at least `smallest` that fits 53 bits."""
    if not isinstance(value, int) or isinstance(value, bool) or not smallest <= value < 2**53:
        raise UserError(f"{where} must be a whole number of at least {smallest}, not {shown(value)}")
    return value


def seconds(value: Any, where: str, smallest: float = 0.0) -> float:
    """A finite number of at least `smallest`."""
    if type(value) not in (int, float) or not smallest <= value <= MOST_SECONDS:
        raise UserError(f"{where} must be a number between {smallest:g} and {MOST_SECONDS:g}, not {shown(value)}")
    return float(value)


def vector(value: Any, where: str, size: int, smallest: float = 0.0) -> Floats:
    """A list of `size` finite numbers of at least `smallest`."""
    values = listing(value, where)
    if len(values) != size:
        raise UserError(f"{where} has {len(values)} entries for {size} nodes")
    if not {type(item) for item in values} <= {int, float}:
        raise UserError(f"{where} must hold numbers only")
    try:
        array = np.array(values, dtype=np.float64)
    except OverflowError:
        raise UserError(f"{where} holds a number that is too large") from None
    if not (np.isfinite(array).all() and array.min() >= smallest and array.max() <= MOST_SECONDS):
        raise UserError(f"{where} must hold numbers between {smallest:g} and {MOST_SECONDS:g}")
    return array


def matrix(value: Any, where: str, size: int, smallest: float = 0.0) -> Floats:
    """A size x size list of lists of finite numbers of at least `smallest`."""
    rows = listing(value, where)
    if len(rows) != size:
        raise UserError(f"{where} has {len(rows)} rows for {size} nodes")
    return np.array([vector(row, f"{where}[{i}]", size, smallest) for i, row in enumerate(rows)])
