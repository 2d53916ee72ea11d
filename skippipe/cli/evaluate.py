"""Validation loss and perplexity of a trained model, with all stages or with some left out."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from skippipe.cli.stage_choice import add_stage_arguments, chosen_stages
from skippipe.config import DataConfig, RunConfig
from skippipe.errors import UserError
from skippipe.fields import load_config

if TYPE_CHECKING:
    from skippipe.model.checkpoint import Checkpoint
    from skippipe.model.inference import Validation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, its stages, and how much to validate on."""
    add_stage_arguments(parser)
    parser.add_argument("--draws", type=int, default=8, help="random choices with --omit-ratio (default %(default)s)")
    parser.add_argument("--batches", type=int, default=16, help="validation batches at most (default %(default)s)")
    parser.add_argument("--samples", type=int, default=8, help="sequences in a batch (default %(default)s)")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="data.FIELD=VALUE", help="the text to validate on, as for run.sh"
    )
    parser.add_argument(
        "--its-paths", action="store_true", help="read the text, and use the cache, at the paths that the run names"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Validate and print."""
    for name in ("draws", "batches", "samples"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name} must be at least 1, not {getattr(arguments, name)}")
    # Imported here: torch takes seconds, the errors above shouldn't.
    from skippipe.data.batches import prepare, validation_batches
    from skippipe.model.checkpoint import find_latest, load_stages
    from skippipe.model.inference import validate

    checkpoint = find_latest(arguments.path)
    visited = chosen_stages(arguments, checkpoint.meta.stages, arguments.draws)
    prepared = prepare(text_of(checkpoint, arguments.its_paths, arguments.overrides))
    stages = load_stages(checkpoint, arguments.device)
    context = checkpoint.meta.config.model.context
    batches = validation_batches(prepared, arguments.samples, context, arguments.batches)
    result = validate(stages, visited, batches)
    if arguments.json:
        json.dump({"checkpoint": str(checkpoint.folder), **dataclasses.asdict(result)}, sys.stdout)
        print()
    else:
        show(checkpoint, result)
    return 0


def text_of(checkpoint: Checkpoint, its_paths: bool, overrides: list[str]) -> DataConfig:
    """The text to validate on; paths that a checkpoint names, which may be a stranger's, only if that is asked for.

    UserError if its text lies at such paths and none are given.
    """
    theirs = checkpoint.meta.config.data
    given = load_config(RunConfig, None, overrides).data
    if not its_paths:
        if theirs.source != "stdlib" and not overrides:
            raise UserError(
                f"{checkpoint.folder} names its text itself (data.source {theirs.source}): add --its-paths to read what"
                " it names, or give text of your own, such as data.source=files 'data.paths=[my/texts]'"
            )
        theirs = dataclasses.replace(given, validation_fraction=theirs.validation_fraction)
    return dataclasses.replace(theirs, tokenizer=str(checkpoint.tokenizer))


def show(checkpoint: Checkpoint, result: Validation) -> None:
    """Print a validation's figures."""
    meta = checkpoint.meta
    draws = len(result.visited)
    print(f"{'checkpoint':20} {checkpoint.folder} ({meta.iteration} iterations, setting {meta.setting})")
    shown = f"{draws} random choices" if draws > 1 else " ".join(map(str, result.visited[0]))
    print(f"{'stages visited':20} {shown}, of {meta.stages}")
    for name, value, deviation in (
        ("loss (nats a token)", result.loss, result.loss_deviation),
        ("perplexity", result.perplexity, result.perplexity_deviation),
    ):
        print(f"{name:20} {value:.4f}" + (f" +- {deviation:.4f} over the choices" if draws > 1 else ""))
