"""The results file of the iteration time: tables of the paper's method, of ours and of the paper, and their figure."""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import Any

import common
from kept import Kept, Runs
from setups import SETUPS, Setup

from skippipe.schedule import Schedule

SETTINGS = ("baseline", "random", "non-ca-partial", "ca-partial")
PARTIAL = ("non-ca-partial", "ca-partial")
ORIGINAL = Path("configs/schedules/original-20-nodes.json")
ORIGINAL_ITERATION_S = {"baseline": 89.5, "random": 45.3, "non-ca-partial": 32.1, "ca-partial": 30.0}
"""What the original's runtime measured (shared/paper.md)."""


def report(results: common.Results, kept: Kept) -> None:
    """Write everything that was measured."""
    if rows_of(kept):
        report_simulated(results, kept)
        report_collisions(results, kept)
        report_steps(results, kept)
        caption = "Iteration time of every setup: the paper's method, ours, and what is reported"
        results.figure(plot(kept), results.name, caption)
    report_annealed(results, kept)
    report_baselines(results, kept)
    if kept.runs is not None:
        report_measured(results, kept.runs)
    results.write()


def iteration_s(kept: Kept, setup: Setup, setting: str, method: str) -> list[float]:
    """Iterations over the seeds; a setup that differs in DT-FM* alone has the others of the one that it belongs to."""
    if setup.rest_of is None:
        return kept.values("iteration_s", setup.name, method, setting)
    if setting == "baseline":
        return kept.values("iteration_s", setup.name, "baselines", setting)
    return kept.values("iteration_s", setup.rest_of, method, setting)


def middle(values: list[float]) -> float:
    """The median; nan of nothing."""
    return statistics.median(values) if values else float("nan")


def spread(values: list[float]) -> str | None:
    """Median, and the least and the largest of several."""
    if not values:
        return None
    return f"{middle(values):.1f}" + (f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else "")


def share(part: float, whole: float, form: str = ".0%") -> str | None:
    """How much less the part is than the whole; None if one is not known."""
    less = 1 - part / whole
    return None if less != less else format(less, form)


def rows_of(kept: Kept, method: str = "paper") -> list[Setup]:
    """Setups that a method was measured on."""
    return [setup for setup in SETUPS if iteration_s(kept, setup, "ca-partial", method)]


def report_simulated(results: common.Results, kept: Kept) -> None:
    """Iteration times of the paper's method beside what is reported, and of ours."""
    results.text(
        "## Simulated\n\nSeconds of one iteration, from the first forward to the last backward: median over the "
        "seeds, in brackets the least and the largest. Every number is of a search of its own, with the time budget "
        "for all settings of a method together (`create_schedule.py --method paper` and `--method ours`, with the "
        "setup's flags). *Paper's method*: stages by GCMA's score, the same for all four settings; one random draw; "
        "A* and conflict-based search without annealing, with what the literature adds to it (docs/search.md). "
        "*Ours*: stages and paths annealed on the simulation."
    )
    results.table(
        ["setup", *(common.LABELS[name] for name in SETTINGS), "without TC2, ours", "SkipPipe, ours"],
        [
            [setup.label]
            + [spread(iteration_s(kept, setup, name, "paper")) for name in SETTINGS]
            + [spread(iteration_s(kept, setup, name, "ours")) for name in PARTIAL]
            for setup in rows_of(kept)
        ],
    )
    results.text(
        "Saved by SkipPipe against DT-FM*, and the numbers reported with our median of the paper's method over them: "
        "the paper's, read off its figures (+-0.3 s), or those of the original's own run of its create_schedule.py. "
        "That run counts 27 of the 30 microbatches in DT-FM*, and its random (300 s) did not finish all; in its row "
        "the other settings are those of the row above. Both are as in shared/paper.md. The last two columns: our "
        "median of our own method over the same reported numbers."
    )
    saved = ["saved, paper's method", "saved, ours", "saved, reported"]
    columns = [*(common.LABELS[name] for name in SETTINGS), "without TC2, ours", "SkipPipe, ours"]
    results.table(["setup", *saved, *columns], [saved_row(kept, setup) for setup in rows_of(kept)])
    results.text(
        "75% skip is not there: CC3 lets a path skip at most 3 stages in a row, so that K visits reach 4K - 3 stages "
        "at most and every path skips less than 75%."
    )


def saved_row(kept: Kept, setup: Setup) -> list[Any]:
    """What SkipPipe saves, and how far our medians are from the numbers reported."""
    paper, ours = (
        {name: middle(iteration_s(kept, setup, name, method)) for name in SETTINGS} for method in ("paper", "ours")
    )
    theirs = dict(zip(SETTINGS, setup.reported, strict=True))
    full, skipping = theirs["baseline"], theirs["ca-partial"]
    saved = [share(seconds, paper["baseline"]) for seconds in (paper["ca-partial"], ours["ca-partial"])]
    beside = [beside_ours(theirs[name], paper[name]) for name in SETTINGS]
    from_ours = [above(theirs[name], ours[name]) for name in PARTIAL]
    return [setup.label, *saved, share(skipping, full) if full and skipping else None, *beside, *from_ours]


def beside_ours(theirs: float | None, ours: float) -> str | None:
    """A number reported, and how far ours is above it."""
    if theirs is None:
        return None
    told = above(theirs, ours)
    return f"{theirs:g}" + (f" ({told})" if told else "")


def above(theirs: float | None, ours: float) -> str | None:
    """How far ours is above a number reported; None if one of them is not known."""
    return None if theirs is None or ours != ours else f"{round(ours / theirs - 1, 2) + 0.0:+.0%}"


def report_annealed(results: common.Results, kept: Kept) -> None:
    """What annealed paths give, and what stages of our own give on top."""
    if not (rows := [setup for setup in rows_of(kept, "annealed") if setup.rest_of is None]):
        return
    results.text(
        "## Stages or paths\n\nSkipPipe's iteration by the paper's method, then with paths annealed on GCMA's stages "
        "(those of all trials; the whole budget for the two settings with cost-aware paths), then with annealed stages "
        "too. What each gives over the one before."
    )
    table = []
    for setup in rows:
        found = [iteration_s(kept, setup, "ca-partial", method) for method in ("paper", "annealed", "ours")]
        paper, annealed, ours = map(middle, found)
        gains = (share(annealed, paper), share(ours, annealed))
        table.append([setup.label, *map(spread, found), *gains])
    header = ["setup", "paper's method", "GCMA's stages, annealed paths", "ours", "by the paths", "by the stages"]
    results.table(header, table)


def report_baselines(results: common.Results, kept: Kept) -> None:
    """DT-FM* and DT-FM-skip after all of GCMA's trials, how many there was time for, and even draws."""
    setups = [setup for setup in SETUPS if (setup.name, "baselines") in kept.searches]
    if not setups:
        return
    results.text(
        "## DT-FM* and DT-FM-skip after all of GCMA's trials\n\nThe first table's settings stand on what GCMA had "
        "bred by the end of its part of the time (*trials*, if they were counted). Here it makes all of them, "
        "however long they take, so that seed and steps alone decide; if that gives the same numbers, it was not cut "
        "short there. *Evenly*: the same draws of stages, but every node of a stage is visited equally often, which "
        "DT-FM-skip does not ask."
    )
    table = []
    for setup in setups:
        whole, search = kept.searches[setup.name, "baselines"], kept.searches.get((setup.name, "paper"))
        trials = (
            " to ".join(map(str, sorted({min(search.trials), max(search.trials)})))
            if search and search.trials
            else None
        )
        short = iteration_s(kept, setup, "baseline", "paper") if setup.rest_of is None else []
        names = ("baseline", "random", "random, evenly")
        cells = [spread(whole.iteration_s[name]) if name == "baseline" or not setup.rest_of else None for name in names]
        table.append([setup.label, spread(short), trials, min(whole.trials), *cells])
    columns = (common.LABELS["baseline"], common.LABELS["random"], "DT-FM-skip, evenly")
    results.table(["setup", "DT-FM* in the first table", "trials", "all trials", *columns], table)


def report_collisions(results: common.Results, kept: Kept) -> None:
    """What collisions cost: the iteration over that of the slowest origin if it had all nodes to itself."""
    results.text(
        "## What TC2 gives\n\nThe iteration of a plan over that of its slowest origin simulated alone, without the "
        "other origins' microbatches: what is lost to waiting for others on these paths (paper's method, median over "
        "the seeds). TC2 may save more than that: it leads to other paths, and ca-partial also searches twice, each "
        "time at least 2.5 times as long as non-ca-partial."
    )
    table = []
    for setup in rows_of(kept):
        if setup.rest_of is None:
            lost = [middle(kept.values("lost", setup.name, "paper", name)) for name in PARTIAL]
            blind, aware = (middle(iteration_s(kept, setup, name, "paper")) for name in PARTIAL)
            table.append([setup.label, *(f"{value:.1%}" for value in lost), share(aware, blind, ".1%")])
    results.table(["setup", *(f"lost to others, {common.LABELS[name]}" for name in PARTIAL), "TC2 saves"], table)


def report_steps(results: common.Results, kept: Kept) -> None:
    """Step times, with the data-parallel sync."""
    results.text(
        "## Steps\n\nThe same with the data-parallel sync (expected step, median over the seeds). GCMA's score "
        "counts the sync; our annealed stages go for the iteration and may let the sync grow (`sync_slack`), the "
        "joint search goes for the step. Saved: against the full pipeline's step."
    )
    columns = {
        "DT-FM*": ("paper", "baseline"),
        "DT-FM-skip": ("paper", "random"),
        "SkipPipe, paper's method": ("paper", "ca-partial"),
        "SkipPipe, ours": ("ours", "ca-partial"),
        "joint, ours": ("ours", "joint"),
    }
    table = []
    for setup in rows_of(kept):
        if setup.rest_of is None:
            steps = [middle(kept.values("step_s", setup.name, *column)) for column in columns.values()]
            cells = [f"{seconds:.1f}" if seconds == seconds else None for seconds in steps]
            table.append([setup.label, *cells, share(steps[2], steps[0]), share(steps[-1], steps[0])])
    results.table(["setup", *columns, "saved, paper's method", "saved by joint"], table)


def plot(kept: Kept) -> Any:
    """Bars of the paper's method with what is reported as marks, and of ours beside them."""
    setups = rows_of(kept)
    figure, axes = common.new_figure(1, max(7.0, 1.05 * len(setups)), 4.8)
    bars = [(name, "paper") for name in SETTINGS] + [("ca-partial", "ours")]
    width = 0.16
    highest = 1.1 * max(middle(iteration_s(kept, setup, "baseline", "paper")) for setup in setups)
    for place, (name, method) in enumerate(bars):
        by_paper = method == "paper"
        xs = [row + (place - 2) * width for row in range(len(setups))]
        times = [middle(iteration_s(kept, setup, name, method)) for setup in setups]
        label = common.LABELS[name] + (", paper's method" if name in PARTIAL and by_paper else "")
        style = {} if by_paper else {"hatch": "///", "edgecolor": "white"}
        label = label if by_paper else "SkipPipe, ours (annealed)"
        axes.bar(xs, times, 0.9 * width, color=common.COLOURS[name], label=label, **style)
        if by_paper:
            mark_reported(axes, list(zip(xs, times, setups, strict=True)), place, highest)
    labels = [re.sub(r", | (?=\(|in DT|own run|defaults|a microbatch)", "\n", setup.label) for setup in setups]
    axes.set_xticks(range(len(setups)), labels, fontsize=8)
    axes.set(ylabel="seconds of one iteration", ylim=(0, highest))
    axes.set_title("Iteration time, simulated (less is better)", pad=56)
    axes.grid(False, axis="x")
    axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.04), ncols=3)
    return figure


def mark_reported(axes: Any, bars: list[tuple[float, float, Setup]], place: int, highest: float) -> None:
    """What is reported of the setting at a place as short lines over the bars, each at (x, our number, setup).

    What is too high is written at the top.
    """
    told = [(x, ours, setup.reported[place], setup.reporter) for x, ours, setup in bars]
    inside = [(x, theirs) for x, _, theirs, _ in told if theirs is not None and theirs < highest]
    label = None if place else "reported by the paper, or by the original's own run"
    axes.plot([x for x, _ in inside], [y for _, y in inside], "k_", ms=10, mew=2.5, label=label)
    for x, ours, theirs, reporter in told:
        words = [f"{ours:.0f}"] if ours >= highest else []
        if theirs is not None and theirs >= highest:
            words.append(f"{reporter}: {theirs:g}")
        if words:
            axes.annotate(", ".join(words), (x, 1.01 * highest), ha="center", fontsize=8, annotation_clip=False)


def report_measured(results: common.Results, runs: Runs) -> None:
    """Table of what run.sh measured on the original's schedule."""
    results.text(
        f"## Measured\n\n`{ORIGINAL}` by `run.sh`: 20 processes of this machine train a small model over emulated "
        "links; medians in the schedule's seconds. \"Original\": what the original's runtime measured on two cores "
        "with a tiny model and the same emulated links, as in shared/paper.md."
    )
    header = ["setting", "iteration measured", "expected", "step measured", "expected", "iteration saved", "step saved"]
    results.table(
        [*header, "original, iteration"], [measured_row(summary, runs.summaries[0]) for summary in runs.summaries]
    )
    plans = Schedule.load(ORIGINAL).settings
    most = 1 - plans["ca-partial"].expected_step_s / plans["baseline"].expected_step_s
    results.text(
        f"A step has the data-parallel sync too, {max(plans['baseline'].sync_s):.1f} s on this schedule's stages "
        f"whatever the paths, so {most:.1%} of the step is all that SkipPipe's paths can save here; the paper's 55% "
        "are of the iteration. The joint search above goes for the step and chooses the stages for their sync as well."
    )


def measured_row(summary: dict[str, Any], base: dict[str, Any]) -> list[Any]:
    """One setting's times, what they save against the full pipeline, and the original's; or how the run failed."""
    label, original = common.LABELS[summary["setting"]], ORIGINAL_ITERATION_S[summary["setting"]]
    if "failed" in summary:
        return [label, f"failed: {summary['failed']}", *[None] * 5, original]
    saved = [
        None if "failed" in base else share(summary[name], base[name], ".1%")
        for name in ("measured_iteration_s", "measured_step_s")
    ]
    times = ("measured_iteration_s", "expected_iteration_s", "measured_step_s", "expected_step_s")
    return [label, *(f"{summary[name]:.2f}" for name in times), *saved, original]
