"""From bound sockets to the last node's end: what the commands that start nodes have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from skippipe.peers import PeersConfig

if TYPE_CHECKING:
    from skippipe.runtime.endpoint import Endpoint
    from skippipe.runtime.launcher import Launcher
    from skippipe.runtime.processes import NodeFailedError


def launch(
    peers: PeersConfig,
    nodes: int,
    local: range,
    folder: Path,
    fields: dict[str, str],
    run_node: Callable[[Endpoint], None],
    follow: Callable[[Launcher], int],
    explain: Callable[[NodeFailedError], str],
    farewell: str = "",
) -> int:
    """Start the nodes `local` of `nodes`, let `follow` watch them, and end them all whatever happens; the exit code.

    That is what `follow` returns, 1 if a node fails and 4 if training diverged (the user reads what `explain` makes of
    it), 2 if all nodes find nothing to resume, 1 if a file or a process can't be had, and 128 and the signal's number
    if one stops this process (the user reads that, and `farewell`). UserError if a port is taken.
    `fields` is what must be equal on all machines.
    """
    # Imported here: errors in arguments should not wait for torch.
    from skippipe.runtime.endpoint import open_endpoints
    from skippipe.runtime.launcher import Launcher
    from skippipe.runtime.processes import DIVERGED_EXIT, USER_ERROR_EXIT, NodeFailedError
    from skippipe.runtime.signals import Signals, Stopped

    with Signals() as signals:
        launcher = Launcher(*open_endpoints(peers, nodes, local, folder, fields), run_node, signals)
        try:
            launcher.start()
            return follow(launcher)
        except NodeFailedError as error:
            launcher.stop_after(error)
            if error.nothing_to_resume:
                print(f"\nerror: {error}", file=sys.stderr)
                return USER_ERROR_EXIT
            print(f"\nerror: {explain(error)}", file=sys.stderr)
            return DIVERGED_EXIT if error.diverged else 1
        except Stopped as stopped:
            launcher.stop()
            signals.ignore_the_rest()
            print(f"\nstopped by {stopped}; every node was stopped{farewell}", file=sys.stderr)
            return 128 + stopped.number
        except OSError as error:
            # The disk is full or gone, or no process is to be had: nothing that the program did wrong.
            launcher.stop()
            print(f"\nerror: {error}; every node was stopped{farewell}", file=sys.stderr)
            return 1
        finally:
            launcher.stop()
