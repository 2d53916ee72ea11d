"""From bound sockets to the last node's end: what the commands that start nodes have in common."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skippipe.errors import UserError
from skippipe.peers import PeersConfig

if TYPE_CHECKING:
    from skippipe.runtime.endpoint import Endpoint
    from skippipe.runtime.launcher import Launcher
    from skippipe.runtime.meeting import Meeting
    from skippipe.runtime.processes import NodeFailedError
    from skippipe.transport.invitation import Desk


@dataclass(frozen=True)
class Company:
    """How a machine's nodes come together with those of others."""

    joins: bool = False
    """Whether a run goes on that they get into."""
    meeting: Meeting | None = None
    """Under which secret, if an invitation says so."""
    desk: Desk | None = None
    """Where machines that are invited get what they need."""


ALONE = Company()


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
    company: Company = ALONE,
) -> int:
    """Start the nodes `local` of `nodes`, let `follow` watch them, and end them all whatever happens; the exit code.

    That is what `follow` returns, 1 if a node fails and 4 if training diverged (the user reads what `explain` makes of
    it), 2 if all nodes find nothing to resume, 1 if a file or a process can't be had, and 128 and the signal's number
    if one stops this process (the user reads that, and `farewell`). UserError if a port is taken, or a node by another
    launcher in this folder. On all machines `fields` must be equal.
    """
    # Imported here: errors in arguments should not wait for torch.
    from skippipe.runtime.claims import Claims
    from skippipe.runtime.endpoint import open_endpoints
    from skippipe.runtime.launcher import Launcher
    from skippipe.runtime.meeting import Meeting, meeting_file
    from skippipe.runtime.processes import NodeFailedError
    from skippipe.runtime.restarts import births_from
    from skippipe.runtime.signals import Signals, Stopped
    from skippipe.transport.identity import is_given

    with Signals() as signals:
        (claims := Claims(folder)).take(local)
        first_birth = births_from(time.time()) if company.joins else 0
        met = company.meeting or (Meeting.find(folder) if company.joins else None)
        try:
            endpoints, reader = open_endpoints(peers, nodes, local, folder, fields, first_birth, met, company.desk)
        except OSError as error:
            raise UserError(f"the nodes' sockets can't be opened ({error.strerror}); see ulimit -n") from None
        launcher = Launcher(endpoints, reader, run_node, signals, claims)
        left, is_own = meeting_file(folder, local.start), company.meeting or not is_given(peers.secret_file)
        try:
            Meeting(tuple(launcher.addresses.values()), endpoints[0].secret if is_own else None).leave(left)
            launcher.start()
            return follow(launcher)
        except NodeFailedError as error:
            launcher.stop_after(error)
            return tell(error, explain)
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
            left.unlink(missing_ok=True)
            launcher.stop()


def tell(error: NodeFailedError, explain: Callable[[NodeFailedError], str]) -> int:
    """Say why nodes have ended before their time; the exit code."""
    from skippipe.runtime.processes import DIVERGED_EXIT, USER_ERROR_EXIT

    print(f"\nerror: {error if error.nothing_to_resume else explain(error)}", file=sys.stderr)
    if error.nothing_to_resume:
        return USER_ERROR_EXIT
    return DIVERGED_EXIT if error.diverged else 1
