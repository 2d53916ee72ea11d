"""The options that evaluate and generate share: which run, which of its stages to leave out, on which device."""

from __future__ import annotations

import argparse
from pathlib import Path

from skippipe.errors import UserError
from skippipe.model.inference import Visited, all_stages, early_exit, leave_out, leave_out_at_random


def add_stage_arguments(parser: argparse.ArgumentParser) -> None:
    """A run and its stages: all of them, a list or a share left out, or an early exit."""
    parser.add_argument("path", metavar="RUN", type=Path, help="folder of a run, or of one of its checkpoints")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--omit", metavar="STAGES", help="leave these stages out, such as 2,4")
    choice.add_argument("--omit-ratio", metavar="RATIO", type=float, help="leave out this part of the stages at random")
    choice.add_argument("--exit-after", metavar="STAGE", type=int, help="leave out every stage after this one")
    parser.add_argument("--seed", type=int, default=0, help="seed of every random choice (default %(default)s)")
    parser.add_argument("--device", default="cpu", help="torch device (default %(default)s)")


def chosen_stages(arguments: argparse.Namespace, stages: int, draws: int) -> tuple[Visited, ...]:
    """The stages to visit: one choice, or one for each draw with --omit-ratio; UserError as in inference.py."""
    if arguments.seed < 0:
        raise UserError(f"--seed can't be negative, not {arguments.seed}")
    if arguments.omit_ratio is not None:
        return leave_out_at_random(stages, arguments.omit_ratio, draws, arguments.seed)
    if arguments.exit_after is not None:
        return (early_exit(stages, arguments.exit_after),)
    if arguments.omit is not None:
        names = arguments.omit.split(",")
        if not all(name.isascii() and name.isdigit() for name in names):
            raise UserError(f"--omit needs stages such as 2,4, not {arguments.omit!r}")
        return (leave_out(stages, [int(name) for name in names]),)
    return (all_stages(stages),)
