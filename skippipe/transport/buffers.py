"""Receive buffers that are used again: fresh memory costs a page fault every 4 KB, half the speed of a fast link."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

SMALLEST_BYTES = 1 << 16
"""Smaller buffers come from memory that the allocator keeps anyway."""
MOST_KEPT = 8
"""Buffers of one size."""
MOST_SIZES = 4
FREE_REFERENCES = 3
"""References to a buffer that only the pool knows: its list's, the one in the loop, and sys.getrefcount's own."""


class BufferPool:
    """Hands out uint8 buffers; one is free again when nobody else refers to it or to a view of it."""

    def __init__(self) -> None:
        self.kept: dict[int, list[NDArray[np.uint8]]] = {}
        """By size; the size that was asked for last comes last."""

    def take(self, size: int) -> NDArray[np.uint8]:
        """A buffer of exactly `size` bytes with any content."""
        if size < SMALLEST_BYTES:
            return np.empty(size, dtype=np.uint8)
        buffers = self.kept[size] = self.kept.pop(size, [])
        for buffer in buffers:
            if sys.getrefcount(buffer) <= FREE_REFERENCES:
                return buffer
        if len(self.kept) > MOST_SIZES:
            # What somebody still holds lives on without the pool.
            del self.kept[next(iter(self.kept))]
        if len(buffers) == MOST_KEPT:
            buffers.pop(0)
        buffers.append(np.empty(size, dtype=np.uint8))
        return buffers[-1]
