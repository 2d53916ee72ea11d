"""A schedule's plan, or a run's real times beside it, as a Chrome/Perfetto trace and as pictures."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from skippipe.errors import UserError, shown
from skippipe.report.measured import Measured, measured_run
from skippipe.report.metrics import read_summary
from skippipe.report.plots import draw_gantt, draw_paths
from skippipe.report.run_folder import read_config
from skippipe.report.trace import chrome_trace
from skippipe.report.views import TAKEOVER, read_views
from skippipe.schedule import Schedule


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to show, and the files to write."""
    parser.add_argument("source", help="a schedule file, the name of a shipped one, or the folder of a run")
    parser.add_argument("--setting", help="setting of the schedule; a run knows its own")
    parser.add_argument("--samples", type=int, help="sequences in a microbatch, if the run had other ones")
    parser.add_argument(
        "--iteration",
        metavar="N[-M]",
        help="iterations of the run (default: the first in which a node was lost, else one in the middle)",
    )
    parser.add_argument("--out", type=Path, help="trace to write, for chrome://tracing or ui.perfetto.dev")
    parser.add_argument("--plot", type=Path, help="Gantt chart to write, a PNG")
    parser.add_argument("--paths", type=Path, help="picture of the paths to write, a PNG")


def run(arguments: argparse.Namespace) -> int:
    """Write what was asked for."""
    if not (arguments.out or arguments.plot or arguments.paths):
        raise UserError("nothing to write; give --out trace.json, --plot gantt.png or --paths paths.png")
    schedule, setting, measured = read_source(arguments)
    try:
        if arguments.out:
            arguments.out.write_text(json.dumps(chrome_trace(schedule, setting, measured)), encoding="utf-8")
        if arguments.plot:
            draw_gantt(schedule, setting, arguments.plot, measured)
        if arguments.paths:
            draw_paths(schedule, setting, arguments.paths)
    except (OSError, ValueError) as error:
        raise UserError(f"can't write the output ({error})") from None
    for written in (arguments.out, arguments.plot, arguments.paths):
        if written:
            print(f"wrote {written}")
    return 0


def read_source(arguments: argparse.Namespace) -> tuple[Schedule, str, Measured | None]:
    """The schedule, the setting, and what was measured of a run."""
    source = Path(arguments.source)
    if not source.is_dir():
        if arguments.iteration is not None:
            raise UserError("--iteration is for runs; a schedule has one iteration")
        schedule = with_samples(Schedule.load(arguments.source), arguments.samples)
        setting = arguments.setting or next(iter(schedule.settings))
        schedule.plan(setting, arguments.source)
        return schedule, setting, None
    summary, path = read_summary(source), read_config(source).schedule
    setting, expected = summary.setting, summary.expected_step_s
    if arguments.setting not in (None, setting):
        raise UserError(f"{source} ran setting {setting}, not {arguments.setting}; leave --setting out")
    schedule = with_samples(Schedule.load(path), arguments.samples)
    plan = schedule.plan(setting, path)
    if abs(plan.expected_step_s - expected) > 1e-3 * expected:
        raise UserError(
            f"{source} expected {expected:.3f} s a step, {path} says {plan.expected_step_s:.3f} s; give the run's"
            " --samples, or the schedule has changed since"
        )
    first, last = iterations_of(arguments.iteration) if arguments.iteration else chosen(source, summary.iterations)
    return schedule, setting, measured_run(source, schedule.costs, first, last)


def iterations_of(text: str) -> tuple[int, int]:
    """The first and the last iteration that "3" or "3-6" names."""
    if not (match := re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", text, re.ASCII)):
        raise UserError(f"--iteration must be a number or two, such as 3 or 3-6, not {shown(text)}")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise UserError(f"--iteration {text}: the first must not be after the last")
    return first, last


def chosen(run: Path, iterations: int) -> tuple[int, int]:
    """The iteration that is shown if none is asked for: one that was written."""
    views = read_views(run)
    first = views[0].iteration
    # A node may be lost after the last iteration, too.
    losses = [view.iteration for view in views if view.way == TAKEOVER and view.has_begun]
    middle, every = first + iterations // 2, read_config(run).timeline_every
    iteration = next((lost for lost in losses if lost < first + iterations), max(first, middle - middle % every))
    return iteration, iteration


def with_samples(schedule: Schedule, samples: int | None) -> Schedule:
    """The schedule for another number of samples, if one is given."""
    if samples is None:
        return schedule
    if samples < 1:
        raise UserError(f"--samples must be at least 1, not {samples}")
    return schedule.with_samples(samples)
