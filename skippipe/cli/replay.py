"""Train again, in one process, what a run trained whose nodes died or came back, and compare losses and weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from skippipe.errors import UserError

if TYPE_CHECKING:
    from skippipe.replay import Difference
    from skippipe.report.views import RunView


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, where it began, and what counts as equal."""
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder of a run")
    parser.add_argument("--resume", metavar="RUN", type=Path, help="what the run went on from, if it was resumed")
    parser.add_argument("--tolerance", type=float, help="largest relative difference that is taken for rounding")


def run(arguments: argparse.Namespace) -> int:
    """Replay and print; exit code 1 if the run trained something else."""
    if arguments.tolerance is not None and not arguments.tolerance > 0:
        raise UserError(f"--tolerance must be above 0, not {arguments.tolerance}")
    # Imported here: torch takes seconds, the errors above shouldn't.
    from tqdm import tqdm

    from skippipe.model.checkpoint import find_latest
    from skippipe.replay import LOSS, TOLERANCE, Recorded, replay

    recorded = Recorded.read(arguments.run)
    checkpoint = find_latest(arguments.resume) if arguments.resume else None
    tolerance = TOLERANCE if arguments.tolerance is None else arguments.tolerance
    differences = []
    with tqdm(total=len(recorded.metrics), unit="iteration", leave=False, disable=None) as bar:
        for difference in replay(arguments.run, recorded, checkpoint):
            differences.append(difference)
            bar.update(difference.what == LOSS)
    show_views(recorded.views, differences)
    if recorded.restored is not None:
        print(f"\na stage that was lost is back in view {recorded.restored.number}: nothing after that is compared")
    return show_verdict(differences, tolerance)


def show_views(views: list[RunView], differences: list[Difference]) -> None:
    """A line a view: the iterations that were done in it and their largest differences."""
    from skippipe.replay import LOSS, NORM, WEIGHTS

    columns = (LOSS, NORM, WEIGHTS)
    print(f"{'view':>4}  {'iterations':12}" + "".join(f"{name:>15}" for name in columns) + "  began as")
    for view in views:
        own = [difference for difference in differences if difference.view == view.number]
        iterations = sorted({difference.iteration for difference in own})
        done = f"{iterations[0]} to {iterations[-1]}" if iterations else "none"
        largest = ""
        for name in columns:
            sizes = [difference.size for difference in own if difference.what == name]
            largest += f"{max(sizes):>15.1e}" if sizes else f"{'-':>15}"
        print(f"{view.number:>4}  {done:12}{largest}  {view.way}, {view.reason}")


def show_verdict(differences: list[Difference], tolerance: float) -> int:
    """The first difference that is too large, or the largest; the exit code."""
    first = next((difference for difference in differences if difference.size > tolerance), None)
    shown = first or max(differences, key=lambda difference: difference.size)
    where = f"{shown.what} of iteration {shown.iteration} (view {shown.view}): {shown.size:.1e}"
    if first is not None:
        print(f"\nnot what one process trains: the first difference above {tolerance:g} is in the {where}")
        return 1
    print(f"\nwhat one process trains: the largest relative difference is in the {where}, within {tolerance:g}")
    return 0
