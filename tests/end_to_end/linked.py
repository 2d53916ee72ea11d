"""`python -m tests.end_to_end.linked run ...`: skippipe, whose nodes log which links they have when they have met.

And what they had to import until then.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from skippipe.__main__ import main
from skippipe.runtime.job import Job
from skippipe.runtime.member import Member
from skippipe.transport.sender import Sender

logger = logging.getLogger(__name__)


def watch_links() -> None:
    """Let nodes log that: patched before the launcher forks."""
    begin, meet, make = Member.__init__, Member.meet, Sender.__init__
    met = False
    forked_with: set[str] = set()

    def beginning(member: Member, job: Job) -> None:
        forked_with.update(sys.modules)
        begin(member, job)

    def meeting(member: Member) -> None:
        nonlocal met
        meet(member)
        met = True
        connected = {node for node, sender in member.links.senders.items() if sender.connected.is_set()}
        logger.info("imported %s", sorted(sys.modules.keys() - forked_with))
        logger.info("sends to %s, connected to %s", sorted(member.receivers()), sorted(connected))

    def making(sender: Sender, node: int, *arguments: Any) -> None:
        make(sender, node, *arguments)
        if met:
            logger.info("opens a link to node %d late", node)

    Member.__init__ = beginning  # type: ignore[method-assign]
    Member.meet = meeting  # type: ignore[method-assign]
    Sender.__init__ = making  # type: ignore[method-assign]


if __name__ == "__main__":
    watch_links()
    sys.exit(main(sys.argv[1:]))
