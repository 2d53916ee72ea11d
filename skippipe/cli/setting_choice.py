"""The options that plan and check share: a configuration, and which setting of its schedule, with how many samples."""

from __future__ import annotations

import argparse

from skippipe.cli.prepare import DEFAULT_CONFIG, config_from_arguments, whole_number
from skippipe.config import RunConfig
from skippipe.schedule import Schedule
from skippipe.schedule.compression import with_compression


def add_setting_arguments(parser: argparse.ArgumentParser) -> None:
    """A configuration, a setting of its schedule, and samples."""
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="[CONFIG] key=value",
        help=f"as for run.sh (default {DEFAULT_CONFIG})",
    )
    parser.add_argument("--setting", help="of the schedule; by default the one with the shortest step")
    parser.add_argument("--samples", help="sequences in a microbatch; by default the schedule's")


def chosen(arguments: argparse.Namespace) -> tuple[RunConfig, Schedule, str]:
    """The configuration, its schedule with the times that such a run expects, and the setting; UserError."""
    config = config_from_arguments(arguments.overrides)
    schedule = Schedule.load(config.schedule)
    if arguments.samples is not None:
        schedule = schedule.with_samples(whole_number(arguments.samples, "--samples", 1))
    schedule = with_compression(config.compression, schedule)
    setting = arguments.setting or min(schedule.settings, key=lambda name: schedule.settings[name].expected_step_s)
    schedule.plan(setting, config.schedule)
    return config, schedule, setting
