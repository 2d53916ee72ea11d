"""Schedules for experiments: searched in this process as create_schedule.py does, and kept for the others."""

from __future__ import annotations

import argparse
from pathlib import Path

from skippipe.cli import search as search_command
from skippipe.schedule import Schedule
from skippipe.search.config import SearchConfig
from skippipe.search.driver import search
from skippipe.search.problem import Instance
from skippipe.search.progress import Progress
from skippipe.search.warm_up import warm_up

KEPT = Path("runs/schedules")


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


def searched(*flags: str) -> Schedule:
    """The schedule that create_schedule.py would write with these flags; searched once and kept in runs/schedules."""
    name = "-".join(Path(flag).stem.lstrip("-") for flag in flags)
    kept = KEPT / f"{name}.json"
    if kept.exists():
        print(f"{kept}: searched before", flush=True)
        return Schedule.load(kept)
    config = search_config(*flags)
    warm_up(config)
    print(f"searching {name}, at most {config.time_budget_s:.0f} s", flush=True)
    schedule = search(Instance.from_config(config), config, Progress())
    KEPT.mkdir(parents=True, exist_ok=True)
    schedule.save(kept)
    return schedule
