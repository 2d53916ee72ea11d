"""What comes before the nodes of a command start: its numbers, its configuration, the data that all nodes read."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from skippipe.config import CONFIGS, RunConfig
from skippipe.errors import UserError
from skippipe.fields import load_config

if TYPE_CHECKING:
    from skippipe.data.batches import Prepared

DEFAULT_CONFIG = CONFIGS / "default.yaml"


def whole_number(text: str, name: str, smallest: int) -> int:
    """A whole number from the command line; UserError if it is none, or below `smallest`."""
    if not text.isascii() or not text.isdigit() or int(text) < smallest:
        raise UserError(f"{name} must be a whole number of at least {smallest}, not {text!r}")
    return int(text)


def config_from_arguments(arguments: Sequence[str]) -> RunConfig:
    """The configuration that arguments `[CONFIG] key=value ..` stand for; UserError names the one that is wrong."""
    if arguments and "=" not in arguments[0]:
        return load_config(RunConfig, Path(arguments[0]), arguments[1:])
    return load_config(RunConfig, DEFAULT_CONFIG, arguments)


def prepare_and_import(config: RunConfig) -> Prepared:
    """Prepare the data in a child process while this one imports what all nodes need."""
    from skippipe.data.batches import prepare

    child = os.fork()
    if child == 0:
        code = 1
        try:
            prepare(config.data)
            code = 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            code = 2
        finally:
            os._exit(code)
    # The garbage collector would look through all modules again and again, a sixth of the time, and find nothing.
    gc.disable()
    import torch

    import skippipe.runtime.launcher
    import skippipe.runtime.worker  # noqa: F401
    from skippipe.model.optimizer import make_adamw

    # Torch loads a good part of itself at the first optimizer; once here instead of once a node.
    make_adamw([torch.nn.Parameter(torch.zeros(1))], config.optimizer)
    gc.enable()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        sys.exit(code if code > 0 else 1)
    return prepare(config.data)
