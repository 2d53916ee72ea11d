"""Which run `--join` means, and the line that brings nodes back by it."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from skippipe.config import RunConfig
from skippipe.errors import UserError
from skippipe.peers import check_reachable
from skippipe.report.run_folder import make_run_folder
from skippipe.runtime.claims import goes_on


def find_run(config: RunConfig, setting: str, nodes: int, local: range) -> Path:
    """The folder of the run of so many nodes that the nodes `local` join; UserError if it can't be known.

    One that goes on in `runs` on this machine: `name`, or the only one there is. Where there is none, other machines
    run it, as `peers` says, and this one's part of it gets a folder of its own.
    """
    runs = Path(config.runs)
    if config.name:
        here = [runs / config.name] if goes_on(runs / config.name, nodes) else []
    else:
        here = [folder for folder in sorted(runs.glob("*")) if goes_on(folder, nodes)]
    if len(here) > 1:
        names = ", ".join(folder.name for folder in here)
        raise UserError(f"--join: several runs go on in {runs} ({names}); choose one with name=")
    if here:
        return here[0]
    if not config.peers.bootstrap:
        which = f"the run {config.name}" if config.name else "a run"
        raise UserError(
            f"--join: no launcher on this machine has {which} of {nodes} nodes under way in {runs};"
            " for one of other machines set peers.bootstrap, peers.host, peers.first_port and peers.secret_file"
        )
    check_reachable(config.peers, nodes, local)
    return make_run_folder(config, setting, local.start, joins=True)


def way_back(arguments: argparse.Namespace) -> str:
    """How the nodes of a command come back to a run that may go on without them."""
    how = (
        "if the others go on without these nodes, bring them back with the same line and --join once they are in reach"
    )
    if arguments.host or arguments.join:
        # An invitation has the secret in it, and the machine that it leads to may be this one.
        return f"{how} (docs/machines.md)"
    resume = ["--resume", str(arguments.resume)] if arguments.resume else []
    where = [arguments.first, arguments.last, arguments.setting, arguments.samples]
    return f"{how}: ./run.sh {shlex.join([*where, *arguments.overrides, *resume])} --join"
