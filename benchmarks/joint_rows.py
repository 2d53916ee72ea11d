"""What the joint search is measured on: instances, each with the ca-partial plan that the search starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from skippipe.fields import build
from skippipe.schedule import Plan, Schedule
from skippipe.schedule.network import find_network, load_network
from skippipe.schedule.plan import make_plan
from skippipe.search.config import SearchConfig
from skippipe.search.driver import search
from skippipe.search.problem import Instance
from skippipe.search.progress import Progress

Row = tuple[Instance, Plan, bool]
"""Instance, the ca-partial plan that the search starts from, and whether the sync counts."""


def original(sync: bool, sync_layers: int = 1, corrected: bool = False) -> Row:
    """The shipped schedule; `corrected` takes NL-London's bandwidth from gcp-12, for the sync (its hops stay)."""
    schedule = Schedule.load(Path("configs/schedules/original-20-nodes.json"))
    instance = Instance.from_schedule(schedule, "ca-partial")
    instance = replace(
        instance, pipeline=replace(instance.pipeline, stage_bytes=instance.pipeline.stage_bytes * sync_layers)
    )
    if corrected:
        _, bandwidth = load_network(find_network("gcp-12")).between(instance.locations)
        instance = replace(instance, bandwidth_gib_s=bandwidth)
    return instance, retimed(instance, schedule.plan("ca-partial")), sync


def retimed(instance: Instance, plan: Plan) -> Plan:
    """The plan with the instance's own sync."""
    stages, costs, memory = [list(stage) for stage in plan.stages], instance.costs, instance.pipeline.memory
    return make_plan(stages, plan.paths_array, costs, memory, instance.sync_s(plan.stages), {"solver": "retimed"})


def searched(sync: bool, seed: int, **fields: object) -> Row:
    """Our own ca-partial of a seed for a configuration."""
    settings = {"settings": ["ca-partial"], "time_budget_s": WARM_START_S, "seed": seed}
    config = build(SearchConfig, {**settings, **fields}, "benchmark")
    instance = Instance.from_config(config)
    return instance, search(instance, config, Progress()).plan("ca-partial"), sync


WIDE = {"nodes": 100, "stages": 6, "stage_sizes": [25, 15, 15, 15, 15, 15], "path_length": 4, "layers_per_stage": 1}
DEEP = {"nodes": 42, "stages": 8, "stage_sizes": [7] + [5] * 7, "path_length": 6, "layers_per_stage": 1}
WARM_START_S = 30.0
"""Seconds of search for our own ca-partial."""
ROWS: dict[str, Callable[[int], Row]] = {
    "original, iteration": lambda seed: original(sync=False),
    "original, step, 1 layer": lambda seed: original(sync=True, corrected=True),
    "original, step, 4 layers' sync": lambda seed: original(sync=True, sync_layers=4, corrected=True),
    "defaults, iteration": lambda seed: searched(False, seed, network="gcp-12-as-published"),
    "42 nodes, step": lambda seed: searched(True, seed, **DEEP),
    "100 nodes, step": lambda seed: searched(True, seed, **WIDE),
}
"""What each row's search of a seed begins with."""
