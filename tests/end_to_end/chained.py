"""`python -m tests.end_to_end.chained NODE run ...`: figures go from node to node in a chain, in which NODE is slow."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

from skippipe.__main__ import main
from skippipe.transport import sharing
from skippipe.transport.sharing import Sharing

SECONDS = 2.0


def chain(slow: int) -> None:
    """Let each node have one below it in the tree, and a node hold back for a while what it sends down."""
    sharing.CHILDREN = 1
    spread = Sharing.spread

    def spreading(own: Sharing) -> Iterator[Any]:
        if own.node == slow:
            time.sleep(SECONDS)
        yield from spread(own)

    Sharing.spread = spreading  # type: ignore[method-assign]


if __name__ == "__main__":
    chain(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
