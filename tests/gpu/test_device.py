"""A GPU's streams and events: copies pass the tasks by, and marks say when work ended."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch

from skippipe.runtime.device import CudaDevice, open_device

GPU = torch.device("cuda:0")
NUMBERS = 1 << 24
"""Of a tensor whose copy takes some milliseconds."""
WORK_SECONDS = 0.3


@pytest.fixture
def device() -> CudaDevice:
    opened = open_device(GPU)
    assert isinstance(opened, CudaDevice)
    # Memory that torch does not have yet, pinned or the GPU's, would wait for the tasks when it is taken.
    pinned = [opened.download(torch.zeros(NUMBERS, device=GPU))() for _ in range(2)]
    opened.upload(torch.zeros(NUMBERS))
    assert len(pinned) == 2
    torch.cuda.current_stream(GPU).synchronize()
    return opened


@pytest.fixture
def work(device: CudaDevice) -> Callable[[], None]:
    """Asks the GPU for work that takes WORK_SECONDS, many times what a copy takes."""
    a = torch.randn(4096, 4096, device=GPU)
    torch.mm(a, a)
    begun = device.mark()()
    for _ in range(10):
        torch.mm(a, a)
    times = max(1, round(10 * WORK_SECONDS / (device.mark()() - begun)))

    def ask() -> None:
        for _ in range(times):
            torch.mm(a, a)

    return ask


def is_busy() -> bool:
    """Whether the tasks' stream has not done all that it was asked for."""
    return not torch.cuda.current_stream(GPU).query()


def test_a_result_is_copied_while_the_next_task_runs(device: CudaDevice, work: Callable[[], None]) -> None:
    result = torch.arange(NUMBERS, device=GPU, dtype=torch.float32)
    copy = device.download(result)
    work()
    here = copy()
    assert is_busy()
    assert here.is_pinned()
    assert torch.equal(here, torch.arange(NUMBERS, dtype=torch.float32))


def test_an_input_is_copied_while_the_task_before_runs(device: CudaDevice, work: Callable[[], None]) -> None:
    message = torch.arange(NUMBERS, dtype=torch.float32)
    work()
    there = device.upload(message)
    device.incoming.synchronize()
    assert is_busy()
    # Whoever computes with it waits for both.
    assert torch.equal((there + 1).cpu(), message + 1)


def test_a_copy_waits_for_what_computes_it_and_neither_direction_for_the_other(
    device: CudaDevice, work: Callable[[], None]
) -> None:
    work()
    result = torch.full((NUMBERS,), 7.0, device=GPU)
    copy = device.download(result)
    device.upload(torch.zeros(NUMBERS))
    device.incoming.synchronize()
    assert is_busy()
    assert torch.equal(copy(), torch.full((NUMBERS,), 7.0))


def test_memory_that_is_given_back_early_is_not_overwritten(device: CudaDevice) -> None:
    copies = []
    for number in range(200):
        there = device.upload(torch.full((1 << 18,), float(number)))
        copies.append(device.download(there * 2))
        del there
    for number, copy in enumerate(copies):
        assert torch.equal(copy(), torch.full((1 << 18,), 2.0 * number)), number


def test_a_mark_is_when_the_work_before_it_ended_however_late_it_is_asked(
    device: CudaDevice, work: Callable[[], None]
) -> None:
    began = device.mark()()
    work()
    first = device.mark()
    work()
    second = device.mark()
    torch.cuda.current_stream(GPU).synchronize()
    now = time.monotonic()
    time.sleep(WORK_SECONDS)
    middle, ended = first(), second()
    assert abs(ended - now) < 0.05
    assert began < middle < ended
    assert middle - began == pytest.approx(ended - middle, rel=0.2)
