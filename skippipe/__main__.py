"""`skippipe COMMAND`: one command a module of skippipe.cli, imported only when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import logging
import signal
import sys
from types import FrameType
from typing import Any

from skippipe.errors import UserError

COMMANDS = {
    "search": "search a schedule for a network (what create_schedule.py calls)",
    "run": "train on this machine's nodes (what run.sh calls)",
    "check": "a doctor: ports, secret, disk, memory, versions and the way to each other machine",
    "plan": "memory, bytes and seconds of each node of a run, before it is started",
    "profile": "measure links and compute between nodes, write a network file",
    "trace": "a schedule or a run as a Chrome trace and a Gantt chart",
    "replay": "train again in one process what a run trained, and compare",
    "checkpoints": "what is here of a run's checkpoints; bring a whole one here from other machines",
    "evaluate": "perplexity of a trained model, with all stages or without some",
    "generate": "text from a trained model, with all stages or without some",
    "export": "a trained model as a Hugging Face folder",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command that the arguments (by default the process's) name; its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    listing = "\n".join(f"  {name:11} {text}" for name, text in COMMANDS.items())
    if not arguments or arguments[0] not in COMMANDS:
        asked = bool(arguments) and arguments[0] in ("-h", "--help")
        print(f"usage: skippipe COMMAND [--help]\n\n{listing}", file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    name, *rest = arguments
    return run_command(importlib.import_module(f"skippipe.cli.{name}"), f"skippipe {name}", rest)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C. KeyboardInterrupt itself, once it passes an exec() of some import, makes Python die of the signal."""


def interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Handle SIGINT."""
    raise Interrupted


def run_command(module: Any, name: str, arguments: list[str] | None, *defaults: Any) -> int:
    """Run a module of skippipe.cli under a name; returns the exit code: 2 for a mistake of the user."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    parser = argparse.ArgumentParser(prog=name, description=module.__doc__)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    try:
        module.add_arguments(parser, *defaults)
        return int(module.run(parser.parse_intermixed_args(arguments)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped by SIGINT", file=sys.stderr)
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
