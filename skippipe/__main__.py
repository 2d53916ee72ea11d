"""`python -m skippipe COMMAND`: one command a module of skippipe.cli, imported only when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import sys

from skippipe.errors import UserError

COMMANDS = {
    "run": "train on this machine's nodes (what run.sh calls)",
    "profile": "measure links and compute between nodes, write a network file",
    "trace": "a schedule or a run as a Chrome trace and a Gantt chart",
    "evaluate": "perplexity of a trained model, with all stages or without some",
    "generate": "text from a trained model, with all stages or without some",
    "export": "a trained model as a Hugging Face folder",
}


def main(arguments: list[str]) -> int:
    """Run one command; its exit code."""
    listing = "\n".join(f"  {name:10} {text}" for name, text in COMMANDS.items())
    if not arguments or arguments[0] not in COMMANDS:
        asked = bool(arguments) and arguments[0] in ("-h", "--help")
        print(f"usage: python -m skippipe COMMAND [--help]\n\n{listing}", file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    name, *rest = arguments
    module = importlib.import_module(f"skippipe.cli.{name}")
    parser = argparse.ArgumentParser(prog=f"python -m skippipe {name}", description=module.__doc__)
    module.add_arguments(parser)
    try:
        return int(module.run(parser.parse_intermixed_args(rest)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
