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
BASELINES_TOLD = "In the searched ones DT-FM* and DT-FM-skip stand on the best stages of all of GCMA's trials."


def add_budget(parser: argparse.ArgumentParser) -> None:
    """How long a schedule is searched."""
    parser.add_argument("--budget", type=float, help="seconds of search a schedule (default: 60 quick, 600 full)")


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


def searched_by_both(budget: str) -> dict[str, Schedule]:
    """Schedules of the paper's 20 nodes in 12 locations, by method, each searched for so many seconds.

    Both have the same DT-FM* and DT-FM-skip, those after all of GCMA's trials, however long they take.
    """
    flags = ("--config", "configs/paper/search-20-nodes.yaml", "--settings")
    baselines = searched(*flags, ",".join(BASELINES), "--time-budget-s", "null").settings
    schedules = {
        PAPERS_METHOD: searched(*flags, ",".join(PARTIAL), "--time-budget-s", budget, "--method", "paper"),
        "searched by us": searched(*flags, ",".join((*PARTIAL, "joint")), "--time-budget-s", budget),
    }
    return {
        name: replace(schedule, settings={**baselines, **schedule.settings}) for name, schedule in schedules.items()
    }
