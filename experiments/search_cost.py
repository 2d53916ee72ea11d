"""Search cost: how long the search takes and how good it gets, over the number of nodes and the budget."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

import common
from searching import search_config

from skippipe.search.driver import search
from skippipe.search.problem import Instance
from skippipe.search.progress import Progress
from skippipe.search.warm_up import warm_up

SIZES = {
    20: ("--nodes", "20", "--stage-sizes", "5,3,3,3,3,3"),
    40: ("--nodes", "40", "--stage-sizes", "10,6,6,6,6,6"),
    80: ("--nodes", "80", "--stage-sizes", "20,12,12,12,12,12"),
    160: ("--nodes", "160", "--stage-sizes", "40,24,24,24,24,24"),
}


@dataclass(frozen=True)
class Outcome:
    """What one search gave."""

    nodes: int
    budget_s: float
    seconds: float
    iteration_s: dict[str, float]
    step_s: dict[str, float]
    bound_s: float | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this experiment takes besides the scale."""
    parser.add_argument("--nodes", type=int, nargs="+", choices=SIZES, help="sizes (default: 20 40 quick, all full)")
    parser.add_argument("--budgets", type=float, nargs="+", help="seconds (default: 4 12 36 quick, 10 60 300 full)")


def experiment() -> None:
    """Search every size with every budget."""
    arguments = common.parse_arguments(__doc__, add_arguments)
    scale = "quick" if arguments.quick else "full"
    sizes = arguments.nodes or ([20, 40] if arguments.quick else list(SIZES))
    budgets = arguments.budgets or ([4.0, 12.0, 36.0] if arguments.quick else [10.0, 60.0, 300.0])
    results = common.Results(f"search-cost-{scale}", f"What the search costs, {scale} scale", arguments.results)
    outcomes = [run_search(nodes, budget) for nodes in sizes for budget in budgets]
    report(results, outcomes)
    results.write()


def run_search(nodes: int, budget: float) -> Outcome:
    """One whole search: assignment and every setting."""
    config = search_config(*SIZES[nodes], "--time-budget-s", f"{budget:g}")
    warm_up(config)
    began = time.monotonic()
    schedule = search(Instance.from_config(config), config, Progress())
    seconds = time.monotonic() - began
    print(f"{nodes} nodes, budget {budget:g} s: {seconds:.1f} s", flush=True)
    plans = schedule.settings
    bound = plans["ca-partial"].search.get("lower_bound_of_stages_s")
    iteration_s = {name: plan.expected_iteration_s for name, plan in plans.items()}
    step_s = {name: plan.expected_step_s for name, plan in plans.items()}
    return Outcome(nodes, budget, seconds, iteration_s, step_s, bound)


def report(results: common.Results, outcomes: list[Outcome]) -> None:
    """Table, the paper's side, figure."""
    results.text(
        "`create_schedule.py` at its defaults (33% skip, 6 stages, network gcp-12, 4 layers and 8 samples of 1024 "
        "tokens) but for nodes and budget. Seconds of one iteration for each setting, and of a step (with sync) for "
        'the two that differ most in it: the joint search goes for the step. "Over the bound": SkipPipe\'s '
        "iteration over the largest lower bound that we know for its stages. Took: whole search, assignment "
        "included, on two shared cores. One seed each: if more budget finds less, the choice of stages was unlucky."
    )
    names = ("baseline", "random", "non-ca-partial", "ca-partial")
    results.table(
        [
            "nodes",
            "budget (s)",
            "took (s)",
            *(common.LABELS[name] for name in names),
            "over the bound",
            "step of SkipPipe",
            "step of the joint search",
        ],
        [
            [
                outcome.nodes,
                outcome.budget_s,
                f"{outcome.seconds:.1f}",
                *(f"{outcome.iteration_s[name]:.1f}" for name in names),
                f"{outcome.iteration_s['ca-partial'] / outcome.bound_s - 1:+.0%}" if outcome.bound_s else None,
                f"{outcome.step_s['ca-partial']:.1f}",
                f"{outcome.step_s['joint']:.1f}",
            ]
            for outcome in outcomes
        ],
    )
    results.text(
        "The paper does not say what its search costs. The original's create_schedule.py took 10 min 1 s for 20 nodes "
        "on two cores and found 165.4 s (DT-FM*), 79.9 s (without TC2) and 77.7 s (SkipPipe), on its network with the "
        "slipped NL-London link."
    )
    results.figure(plot(outcomes), results.name, "Quality of the search over its budget, for every number of nodes")


def plot(outcomes: list[Outcome]) -> Any:
    """What was found over the budget, a line a number of nodes: SkipPipe's iteration, the joint search's step."""
    figure, (left, right) = common.new_figure(2, 10)
    for colour, nodes in zip(("#1b9e77", "#d95f02", "#7570b3", "#e7298a"), SIZES, strict=True):
        rows = [outcome for outcome in outcomes if outcome.nodes == nodes]
        budgets = [row.budget_s for row in rows]
        if not rows:
            continue
        left.plot(budgets, [row.iteration_s["ca-partial"] for row in rows], "o-", color=colour, label=f"{nodes} nodes")
        right.plot(budgets, [row.step_s["joint"] for row in rows], "o-", color=colour, label=f"{nodes} nodes")
    left.set(title="SkipPipe", ylabel="seconds of one iteration")
    right.set(title="joint search (ours)", ylabel="seconds of one step, with sync")
    for axes in (left, right):
        axes.set(xscale="log", xlabel="budget for all settings together (seconds, log scale)")
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
        axes.set_xticks(sorted({outcome.budget_s for outcome in outcomes}))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=9)
    return figure


if __name__ == "__main__":
    common.main(experiment)
