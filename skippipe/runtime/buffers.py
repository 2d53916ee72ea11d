"""Receive buffers that are used again: fresh memory costs a page fault every 4 KB, half the speed of a fast link."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

SMALLEST_BYTES = 1 << 16
"""Smaller buffers come from memory that the allocator keeps anyway."""
MOST_KEPT = 8
FREE_REFERENCES = 2
"""References to a buffer that only the pool knows: the pool's and sys.getrefcount's own."""


class BufferPool:
    """Hands out uint8 buffers; one is free again when nobody else refers to it or to a view of it."""

    def __init__(self) -> None:
        self.kept: list[NDArray[np.uint8]] = []

    def take(self, size: int) -> NDArray[np.uint8]:
        """A buffer of exactly `size` bytes with any content."""
        if size < SMALLEST_BYTES:
            return np.empty(size, dtype=np.uint8)
        for place in range(len(self.kept)):
            if len(self.kept[place]) == size and sys.getrefcount(self.kept[place]) <= FREE_REFERENCES:
                self.kept.append(self.kept.pop(place))
                return self.kept[-1]
        buffer = np.empty(size, dtype=np.uint8)
        self.kept.append(buffer)
        if len(self.kept) > MOST_KEPT:
            # The one that was used longest ago; where somebody still holds it, it lives on without the pool.
            self.kept.pop(0)
        return buffer
