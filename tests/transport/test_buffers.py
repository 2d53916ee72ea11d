"""Receive buffers are used again, but never while somebody still reads them."""

from __future__ import annotations

import torch

from skippipe.transport.buffers import MOST_KEPT, MOST_SIZES, SMALLEST_BYTES, BufferPool


def test_a_buffer_is_used_again_when_its_tensors_are_gone() -> None:
    pool = BufferPool()
    buffer = pool.take(SMALLEST_BYTES)
    address = buffer.ctypes.data
    tensor = torch.from_numpy(buffer)[64:].view(torch.float32)
    del buffer
    assert pool.take(SMALLEST_BYTES).ctypes.data != address
    del tensor
    assert pool.take(SMALLEST_BYTES).ctypes.data == address


def test_buffers_in_use_are_never_shared_however_many_there_are() -> None:
    pool = BufferPool()
    held = [pool.take(SMALLEST_BYTES) for _ in range(3 * MOST_KEPT)]
    assert len({buffer.ctypes.data for buffer in held}) == len(held)
    assert len(pool.kept[SMALLEST_BYTES]) <= MOST_KEPT


def test_many_messages_of_one_size_leave_the_buffers_of_another_alone_but_sizes_are_bounded() -> None:
    pool = BufferPool()
    address = pool.take(2 * SMALLEST_BYTES).ctypes.data
    held = [pool.take(SMALLEST_BYTES) for _ in range(3 * MOST_KEPT)]
    assert pool.take(2 * SMALLEST_BYTES).ctypes.data == address
    for size in range(SMALLEST_BYTES, SMALLEST_BYTES + 10 * MOST_SIZES):
        held.append(pool.take(size))
    assert len(pool.kept) == MOST_SIZES
