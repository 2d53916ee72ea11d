"""Drifting links: the step when links change after the search, with its order, without, and after another search."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import common
import numpy
from searching import search_config

from skippipe.costs import HOP_FIXED_S, Costs
from skippipe.schedule import Plan, Schedule
from skippipe.search.driver import search
from skippipe.search.problem import Instance, SearchConfig
from skippipe.search.progress import Progress
from skippipe.search.warm_up import warm_up
from skippipe.simulate import Starts, simulate_first_come_first_served, simulate_order, step_with_sync_seconds

ORIGINAL = Path("configs/schedules/original-20-nodes.json")
DRIFTS = (0.1, 0.2, 0.5)
SETTINGS = ("baseline", "random", "non-ca-partial", "ca-partial")
WAYS = ("order followed", "first come, first served", "searched again")


def experiment() -> None:
    """Let the shipped schedule's links drift and simulate."""
    arguments = common.parse_arguments(__doc__)
    scale = "quick" if arguments.quick else "full"
    networks, searches, budget = (20, 2, 8) if arguments.quick else (200, 20, 60)
    results = common.Results(f"drifting-links-{scale}", f"Links that drift after the search, {scale} scale",
                             arguments.results)  # fmt: skip
    schedule = Schedule.load(ORIGINAL)
    memory = schedule.pipeline.memory
    config = search_config("--time-budget-s", str(budget), "--settings", "non-ca-partial,ca-partial")
    warm_up(config)
    measured: dict[tuple[str, float], dict[str, list[float]]] = {}
    for drift in DRIFTS:
        changed = [drifted(schedule, drift, seed) for seed in range(networks)]
        again = [searched_again(schedule, costs, config) for costs in changed[:searches]]
        for setting in SETTINGS:
            plan = schedule.settings[setting]
            measured[setting, drift] = {
                "order followed": [step_s(plan, costs, follow(schedule, plan, costs)) for costs in changed],
                "first come, first served": [
                    step_s(plan, costs, simulate_first_come_first_served(plan.paths_array, costs, memory))
                    for costs in changed
                ],
                "searched again": again if setting == "ca-partial" else [],
            }
        print(f"drift {drift:.0%} done", flush=True)
    report(results, schedule, measured, networks, searches, budget)
    results.write()


def drifted(schedule: Schedule, drift: float, seed: int) -> Costs:
    """Costs once the variable part of every link has changed by up to +-drift, both directions of a pair alike."""
    generator = numpy.random.default_rng((seed, round(100 * drift)))
    factor = generator.uniform(1 - drift, 1 + drift, (schedule.nodes, schedule.nodes))
    factor = numpy.triu(factor) + numpy.triu(factor, 1).T
    variable = numpy.maximum(schedule.costs.hop_s - HOP_FIXED_S, 0.0)
    return replace(schedule.costs, hop_s=schedule.costs.hop_s - variable + variable * factor)


def follow(schedule: Schedule, plan: Plan, costs: Costs) -> Starts:
    """Starts of the steps where nodes follow the plan's order."""
    return simulate_order(plan.paths_array, costs, *plan.order_arrays(schedule.nodes))


def step_s(plan: Plan, costs: Costs, starts: Starts) -> float:
    """Step time, data-parallel sync included; the sync's own links are left as they were."""
    stages = [list(stage) for stage in plan.stages]
    return step_with_sync_seconds(plan.paths_array, costs, starts, stages, list(plan.sync_s))


def searched_again(schedule: Schedule, costs: Costs, config: SearchConfig) -> float:
    """Step of ca-partial paths searched for the changed links; nodes keep their stages, as their weights lie there."""
    instance = replace(Instance.from_schedule(schedule, "ca-partial"), costs=costs)
    return search(instance, config, Progress()).settings["ca-partial"].expected_step_s


def report(
    results: common.Results,
    schedule: Schedule,
    measured: dict[tuple[str, float], dict[str, list[float]]],
    networks: int,
    searches: int,
    budget: int,
) -> None:
    """Table, sentence and figure."""
    results.text(
        f"`{ORIGINAL}`: after the schedule was made, latency and transfer time of every link change by a factor drawn "
        f"evenly from 1 +- drift. Seconds of a step, mean and deviation over {networks} networks. Searched again: "
        f"SkipPipe's paths on the same stages for {searches} of the networks, {budget} s of search each. The paper "
        "does not look at this; its reviewers asked."
    )
    rows: list[list[Any]] = []
    for (setting, drift), ways in measured.items():
        plan = schedule.settings[setting]
        rows.append([common.LABELS[setting], f"{drift:.0%}", plan.expected_step_s,
                     *(spread(ways[way]) for way in WAYS)])  # fmt: skip
    results.table(["setting", "drift", "links as expected", *WAYS], rows)
    results.figure(plot(schedule, measured), results.name, "Step time over the drift of the links")


def spread(values: list[float]) -> str | None:
    """Mean and deviation as they stand in a table."""
    if not values:
        return None
    return f"{statistics.fmean(values):.1f} +- {statistics.stdev(values) if len(values) > 1 else 0:.1f}"


def plot(schedule: Schedule, measured: dict[tuple[str, float], dict[str, list[float]]]) -> Any:
    """Step time over drift: order followed solid, first come first served dashed, searched again dotted."""
    figure, axes = common.new_figure(1, 8, 4.6)
    styles = {"order followed": "o-", "first come, first served": "s--", "searched again": "D:"}
    for setting in SETTINGS:
        for way, style in styles.items():
            points = [(100 * drift, measured[setting, drift][way]) for drift in DRIFTS if measured[setting, drift][way]]
            if not points:
                continue
            start = [(0.0, schedule.settings[setting].expected_step_s)] if way == "order followed" else []
            axes.plot([x for x, _ in start] + [x for x, _ in points],
                      [y for _, y in start] + [statistics.fmean(values) for _, values in points],
                      style, ms=5, color=common.COLOURS[setting], label=f"{common.LABELS[setting]}, {way}")  # fmt: skip
    axes.set(xlabel="change of the links after the search (+- %)", ylabel="seconds of a step (mean)", ylim=(0, None),
             title="A schedule stays good when links drift")  # fmt: skip
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


if __name__ == "__main__":
    common.main(experiment)
