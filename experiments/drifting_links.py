"""Drifting links: the step when links change after the search, with its order, without, and after another search."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import common
import numpy
from searching import PAPERS_METHOD, add_search, baselines_told, budget_of, search_config, searched_by_both

from skippipe.schedule import Costs, Plan, Schedule
from skippipe.schedule.arrays import Floats
from skippipe.schedule.simulate import simulate_first_come_first_served, simulate_order, step_with_sync_seconds
from skippipe.search.config import SearchConfig
from skippipe.search.driver import search
from skippipe.search.problem import Instance
from skippipe.search.progress import Progress
from skippipe.search.warm_up import warm_up

ORIGINAL = Path("configs/schedules/original-20-nodes.json")
DRIFTS = (0.1, 0.2, 0.5)
STYLES = {"order followed": "o-", "first come, first served": "s--", "searched again": "D:"}

Measured = dict[tuple[str, float], dict[str, list[float]]]
"""Step times by setting, drift and way."""


def experiment() -> None:
    """Let the links of the shipped schedule and of a searched one drift, and simulate."""
    arguments = common.parse_arguments(__doc__, add_search)
    scale = "quick" if arguments.quick else "full"
    networks, searches, most = (20, 2, 8.0) if arguments.quick else (200, 20, 60.0)
    seconds = min(most, float(budget_of(arguments)) / 3)
    results = common.Results(
        f"drifting-links-{scale}", f"Links that drift after the search, {scale} scale", arguments.results
    )
    schedules = {"original's schedule": Schedule.load(ORIGINAL), **searched_by_both(arguments)}
    again = ("--time-budget-s", f"{seconds:g}", "--settings", "non-ca-partial,ca-partial")
    configs = {name: search_config(*again, "--method", method_of(name)) for name in schedules}
    for config in configs.values():
        warm_up(config)
    results.text(
        "20 nodes, 33% skip. After the schedule was made, latency and transfer time of every link change by a factor "
        f"drawn evenly from 1 +- drift. Seconds of a step, mean and deviation over {networks} networks. Searched "
        f"again: SkipPipe's paths on the same stages for {searches} of the networks, {seconds:.2g} s of search each, "
        "by the method that the schedule was searched by, the original's by ours. The paper does not look at this; its "
        f"reviewers asked. {baselines_told(arguments)}"
    )
    everything = {name: measure(schedule, configs[name], networks, searches) for name, schedule in schedules.items()}
    for name, schedule in schedules.items():
        results.text(f"## {name}")
        results.table(
            ["setting", "drift", "links as expected", *STYLES],
            [
                [
                    common.LABELS[setting],
                    f"{drift:.0%}",
                    f"{schedule.settings[setting].expected_step_s:.1f}",
                    *(spread(ways[way]) for way in STYLES),
                ]
                for (setting, drift), ways in everything[name].items()
            ],
        )
    results.figure(plot(schedules, everything), results.name, "Step time over the drift of the links")
    results.write()


def method_of(name: str) -> str:
    """By which method a schedule's paths are searched again."""
    return "paper" if name == PAPERS_METHOD else "ours"


def measure(schedule: Schedule, config: SearchConfig, networks: int, searches: int) -> Measured:
    """Every setting of a schedule on drifted networks."""
    measured: Measured = {}
    for drift in DRIFTS:
        changed = [drifted(schedule, drift, seed) for seed in range(networks)]
        again = [searched_again(schedule, costs, config) for costs in changed[:searches]]
        for setting, plan in schedule.settings.items():
            measured[setting, drift] = {
                "order followed": [step_s(plan, costs, follow(schedule, plan, costs)) for costs in changed],
                "first come, first served": [step_s(plan, costs, serve(schedule, plan, costs)) for costs in changed],
                "searched again": again if setting == "ca-partial" else [],
            }
        print(f"drift {drift:.0%} done", flush=True)
    return measured


def drifted(schedule: Schedule, drift: float, seed: int) -> Costs:
    """Costs once the variable part of every link has changed by up to +-drift, both directions of a pair alike."""
    generator = numpy.random.default_rng((seed, round(100 * drift)))
    factor = generator.uniform(1 - drift, 1 + drift, (schedule.nodes, schedule.nodes))
    factor = numpy.triu(factor) + numpy.triu(factor, 1).T
    variable = numpy.minimum(schedule.latency_ms / 1000 + schedule.transfer_s, schedule.costs.hop_s)
    return replace(schedule.costs, hop_s=schedule.costs.hop_s - variable + variable * factor)


def follow(schedule: Schedule, plan: Plan, costs: Costs) -> Floats:
    """Starts of the steps if nodes follow the plan's order."""
    return simulate_order(plan.paths_array, costs, *plan.order_arrays(schedule.nodes))


def serve(schedule: Schedule, plan: Plan, costs: Costs) -> Floats:
    """Starts of the steps if nodes serve what comes first, whatever the plan's order."""
    return simulate_first_come_first_served(plan.paths_array, costs, schedule.pipeline.memory)


def step_s(plan: Plan, costs: Costs, starts: Floats) -> float:
    """Step time, data-parallel sync included; the sync's own links are left as they were."""
    stages = [list(stage) for stage in plan.stages]
    return step_with_sync_seconds(plan.paths_array, costs, starts, stages, list(plan.sync_s))


def searched_again(schedule: Schedule, costs: Costs, config: SearchConfig) -> float:
    """Step of ca-partial paths searched for the changed links; nodes keep their stages, as their weights lie there."""
    instance = replace(Instance.from_schedule(schedule, "ca-partial"), costs=costs)
    return search(instance, config, Progress()).settings["ca-partial"].expected_step_s


def spread(values: list[float]) -> str | None:
    """Mean and deviation as they stand in a table."""
    if not values:
        return None
    return f"{statistics.fmean(values):.1f} +- {statistics.stdev(values) if len(values) > 1 else 0:.1f}"


def plot(schedules: dict[str, Schedule], everything: dict[str, Measured]) -> Any:
    """Step time over drift, a panel a schedule: colours are settings, lines are ways."""
    figure, panels = common.new_figure(len(schedules), 15, 4.8)
    for axes, (name, schedule) in zip(panels, schedules.items(), strict=True):
        for setting, plan in schedule.settings.items():
            for way, style in STYLES.items():
                ways = everything[name]
                points = [(100 * drift, ways[setting, drift][way]) for drift in DRIFTS if ways[setting, drift][way]]
                if not points:
                    continue
                start = [(0.0, plan.expected_step_s)] if way == "order followed" else []
                axes.plot(
                    [x for x, _ in start] + [x for x, _ in points],
                    [y for _, y in start] + [statistics.fmean(values) for _, values in points],
                    style,
                    ms=5,
                    color=common.COLOURS[setting],
                )
            axes.plot([], [], "-", lw=4, color=common.COLOURS[setting], label=common.LABELS[setting])
        axes.set(
            xlabel="change of the links after the search (+- %)",
            ylabel="seconds of a step (mean)",
            ylim=(0, None),
            title=name,
        )
    for way, style in STYLES.items():
        panels[-1].plot([], [], style, ms=5, color="k", label=way)
    entries = panels[-1].get_legend_handles_labels()
    figure.legend(*entries, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


if __name__ == "__main__":
    common.main(experiment)
