"""Search cost: how long the search takes and how good it gets, over the number of nodes and the budget."""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from typing import Any

import common
from searching import BASELINES, PAPERS, PARTIAL, search_config

from skippipe.schedule import Schedule
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
    """What the searches of one size and budget gave, one a seed."""

    nodes: int
    budget_s: float
    seconds: list[float]
    schedules: list[Schedule]
    papers: list[Schedule]
    """The paper's settings by its own method, in as much time."""

    def iteration_s(self, setting: str) -> list[float]:
        """Expected iterations over the seeds."""
        return [schedule.plan(setting).expected_iteration_s for schedule in self.schedules]

    def papers_iteration_s(self, setting: str) -> list[float]:
        """The same by the paper's method."""
        return [schedule.plan(setting).expected_iteration_s for schedule in self.papers]

    def step_s(self, setting: str) -> list[float]:
        """Expected steps over the seeds."""
        return [schedule.plan(setting).expected_step_s for schedule in self.schedules]

    def over_bound(self) -> list[float]:
        """SkipPipe's iteration over the largest lower bound that we know for its stages, over the seeds."""
        plans = [schedule.plan("ca-partial") for schedule in self.schedules]
        return [plan.expected_iteration_s / plan.search["lower_bound_of_stages_s"] - 1 for plan in plans]

    def trials(self) -> list[int]:
        """Offspring that the genetic algorithm had time for, over the seeds."""
        return [schedule.plan("ca-partial").search["trials"] for schedule in self.schedules]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this experiment takes besides the scale."""
    parser.add_argument("--nodes", type=int, nargs="+", choices=SIZES, help="sizes (default: 20 40 quick, all full)")
    parser.add_argument("--budgets", type=float, nargs="+", help="seconds (default: 4 12 36 quick, 10 60 300 full)")
    parser.add_argument("--seeds", type=int, default=3, help="searches of each (default %(default)s)")


def experiment() -> None:
    """Search every size with every budget."""
    arguments = common.parse_arguments(__doc__, add_arguments)
    scale = "quick" if arguments.quick else "full"
    sizes = arguments.nodes or ([20, 40] if arguments.quick else list(SIZES))
    budgets = arguments.budgets or ([4.0, 12.0, 36.0] if arguments.quick else [10.0, 60.0, 300.0])
    results = common.Results(f"search-cost-{scale}", f"What the search costs, {scale} scale", arguments.results)
    outcomes = [run_searches(nodes, budget, arguments.seeds) for nodes in sizes for budget in budgets]
    report(results, outcomes, arguments.seeds)
    results.write()


def run_searches(nodes: int, budget: float, seeds: int) -> Outcome:
    """Whole searches, assignment and every setting, one a seed."""
    taken, schedules, papers = [], [], []
    for seed in range(seeds):
        flags = (*SIZES[nodes], "--time-budget-s", f"{budget:g}", "--seed", str(seed))
        config = search_config(*flags)
        paper = search_config(*flags, "--method", "paper", "--settings", ",".join(PAPERS))
        warm_up(config)
        papers.append(search(Instance.from_config(paper), paper, Progress()))
        began = time.monotonic()
        schedules.append(search(Instance.from_config(config), config, Progress()))
        taken.append(time.monotonic() - began)
        print(f"{nodes} nodes, budget {budget:g} s, seed {seed}: {taken[-1]:.1f} s", flush=True)
    return Outcome(nodes, budget, taken, schedules, papers)


def spread(values: list[float]) -> str:
    """Median, and the least and the largest."""
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def report(results: common.Results, outcomes: list[Outcome], seeds: int) -> None:
    """Table, the paper's side, figure."""
    results.text(
        "`create_schedule.py` at its defaults (33% skip, 6 stages, network gcp-12, 4 layers and 8 samples of 1024 "
        "tokens) but for nodes and budget. Seconds of one iteration for each setting, and of a step (with sync) for "
        "the two that differ most in it: the joint search goes for the step. SkipPipe, with and without TC2, by the "
        "paper's method and by ours, each with the whole budget; the rest is of the search by ours. \"Over the "
        "bound\": our SkipPipe's iteration over the largest lower bound that we know for its stages. Took: whole "
        f"search, assignment included, on two cores. Medians of {seeds} seeds, in brackets the least and the largest. "
        "Trials: the fewest that GCMA had time for, of 8000."
    )
    columns = [
        "nodes",
        "budget (s)",
        "took (s)",
        "trials",
        *(common.LABELS[name] for name in PAPERS),
        "without TC2, ours",
        "SkipPipe, ours",
        "over the bound",
        "step of SkipPipe, ours",
        "step of the joint search",
    ]
    results.table(columns, [row_of(outcome) for outcome in outcomes])
    results.text(
        "The paper does not say what its search costs. The original's create_schedule.py took 10 min 1 s for 20 nodes "
        "on two cores and found 165.4 s (DT-FM*, 27 of the 30 microbatches), 79.9 s (without TC2) and 77.7 s "
        "(SkipPipe), on its network with the slipped NL-London link (shared/paper.md)."
    )
    results.figure(plot(outcomes), results.name, "Quality of the search over its budget, for every number of nodes")


def row_of(outcome: Outcome) -> list[Any]:
    """The line of one size and budget."""
    return [
        outcome.nodes,
        outcome.budget_s,
        f"{statistics.median(outcome.seconds):.1f}",
        min(outcome.trials()),
        *(spread(outcome.iteration_s(name)) for name in BASELINES),
        *(spread(outcome.papers_iteration_s(name)) for name in PARTIAL),
        *(spread(outcome.iteration_s(name)) for name in PARTIAL),
        f"{statistics.median(outcome.over_bound()):+.0%}",
        spread(outcome.step_s("ca-partial")),
        spread(outcome.step_s("joint")),
    ]


def plot(outcomes: list[Outcome]) -> Any:
    """What was found over the budget, a line a number of nodes: SkipPipe's iteration, the joint search's step."""
    figure, (left, right) = common.new_figure(2, 10)
    for colour, nodes in zip(("#1b9e77", "#d95f02", "#7570b3", "#e7298a"), SIZES, strict=True):
        rows = [outcome for outcome in outcomes if outcome.nodes == nodes]
        if rows:
            name = f"{nodes} nodes"
            papers = [row.papers_iteration_s("ca-partial") for row in rows]
            draw(left, rows, papers, f"{name}, paper's method", color=colour, fmt="s--")
            draw(left, rows, [row.iteration_s("ca-partial") for row in rows], f"{name}, ours", color=colour, fmt="o-")
            draw(right, rows, [row.step_s("joint") for row in rows], name, color=colour, fmt="o-")
    left.set(title="SkipPipe", ylabel="seconds of one iteration, median and range")
    right.set(title="joint search (ours)", ylabel="seconds of one step, with sync, median and range")
    for axes in (left, right):
        axes.set(xscale="log", xlabel="budget for all settings together (seconds, log scale)")
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
        axes.set_xticks(sorted({outcome.budget_s for outcome in outcomes}))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=9)
    return figure


def draw(axes: Any, rows: list[Outcome], values: list[list[float]], label: str, **style: str) -> None:
    """One number of nodes: medians over the budget, and their range."""
    budgets, middles = [row.budget_s for row in rows], [statistics.median(each) for each in values]
    below = [middle - min(each) for middle, each in zip(middles, values, strict=True)]
    above = [max(each) - middle for middle, each in zip(middles, values, strict=True)]
    axes.errorbar(budgets, middles, [below, above], capsize=3, label=label, **style)


if __name__ == "__main__":
    common.main(experiment)
