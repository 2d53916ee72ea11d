"""Schedules for experiments: searched in this process as create_schedule.py does."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace

import numpy

from skippipe.cli import search as search_command
from skippipe.schedule import Schedule
from skippipe.search.assignment import assign
from skippipe.search.config import SearchConfig
from skippipe.search.driver import search
from skippipe.search.problem import Instance
from skippipe.search.progress import Progress
from skippipe.search.warm_up import warm_up

BASELINES, PARTIAL = ("baseline", "random"), ("non-ca-partial", "ca-partial")
"""The paper's settings: those on GCMA's own best stages, and those in which the two methods differ."""
PAPERS = (*BASELINES, *PARTIAL)
PAPERS_METHOD = "searched by the paper's method"


def add_budget(parser: argparse.ArgumentParser) -> None:
    """How long a schedule is searched."""
    parser.add_argument("--budget", type=float, help="seconds of search a schedule (default: 60 quick, 600 full)")


def add_search(parser: argparse.ArgumentParser) -> None:
    """How long schedules are searched by both methods, and how long the stages of their baselines."""
    add_budget(parser)
    trials = SearchConfig().trials
    parser.add_argument("--trials", type=int, default=trials, help=f"GCMA's for DT-FM*'s stages (default: {trials})")


def budget_of(arguments: argparse.Namespace) -> str:
    """Seconds of search a schedule, as create_schedule.py takes them."""
    return f"{arguments.budget or (60 if arguments.quick else 600):g}"


def search_config(*flags: str) -> SearchConfig:
    """The configuration that create_schedule.py would search with these flags."""
    parser = argparse.ArgumentParser()
    search_command.add_arguments(parser)
    return search_command.configuration(parser.parse_args(flags))


def searched(*flags: str, on_gcma: bool = False) -> Schedule:
    """The schedule that create_schedule.py would write with these flags.

    on_gcma: all settings on GCMA's best stages, whose choice takes the time that it takes.
    """
    config = search_config(*flags)
    warm_up(config)
    print(f"searching {' '.join(flags)}", flush=True)
    instance = Instance.from_config(config)
    if on_gcma:
        rng = numpy.random.default_rng(config.seed)
        ranked = assign(instance, config.population, config.trials, math.inf, rng, Progress()).ranked
        instance = instance.with_stages(ranked[0])
    return search(instance, config, Progress())


def searched_by_both(arguments: argparse.Namespace) -> dict[str, Schedule]:
    """Schedules of the paper's 20 nodes in 12 locations, by method, each searched for so many seconds.

    Both have the same DT-FM* and DT-FM-skip, those after all trials asked of GCMA, however long they take.
    """
    flags = ("--config", "configs/paper/search-20-nodes.yaml", "--settings")
    trials = ("--time-budget-s", "null", "--trials", str(arguments.trials))
    baselines = searched(*flags, ",".join(BASELINES), *trials).settings
    budget = ("--time-budget-s", budget_of(arguments))
    schedules = {
        PAPERS_METHOD: searched(*flags, ",".join(PARTIAL), *budget, "--method", "paper"),
        "searched by us": searched(*flags, ",".join((*PARTIAL, "joint")), *budget),
    }
    return {
        name: replace(schedule, settings={**baselines, **schedule.settings}) for name, schedule in schedules.items()
    }


def baselines_told(arguments: argparse.Namespace) -> str:
    """What the baselines of searched_by_both stand on, as a sentence."""
    return f"In the searched ones DT-FM* and DT-FM-skip stand on the best stages of {arguments.trials} trials of GCMA."
