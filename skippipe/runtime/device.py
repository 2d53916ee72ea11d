"""What a node computes on, as its executor sees it: when work is done there, and the ways to and from the CPU."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

Copy = Callable[[], Tensor]
"""Waits for a copy on its way to the CPU."""
Mark = Callable[[], float]
"""Waits until all is done that the device was asked for before the mark; when that was, in monotonic seconds."""


class Device(ABC):
    """A device that works off what it is asked for in its order."""

    runs_ahead: bool
    """Whether it may be asked for a task before it is done with the one before."""

    def __init__(self, torch_device: torch.device) -> None:
        self.torch = torch_device

    @abstractmethod
    def upload(self, tensor: Tensor) -> Tensor:
        """A tensor of the CPU, on the device: what is asked for from now on waits for the copy, the caller does not."""

    @abstractmethod
    def download(self, tensor: Tensor) -> Copy:
        """Begin to copy a tensor to the CPU as soon as it is computed; what is asked for from now on does not wait."""

    @abstractmethod
    def mark(self) -> Mark:
        """The end of all that was asked for so far."""


class CpuDevice(Device):
    """The CPU: all is done when it was asked for, and nothing is copied."""

    runs_ahead = False

    def upload(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor

    def download(self, tensor: Tensor) -> Copy:
        """The tensor itself."""
        return lambda: tensor

    def mark(self) -> Mark:
        """Now."""
        now = time.monotonic()
        return lambda: now


class CudaDevice(Device):
    """A GPU. Copies go through pinned memory, each direction in a stream of its own beside that of the tasks."""

    runs_ahead = True

    def __init__(self, torch_device: torch.device) -> None:
        super().__init__(torch_device)
        # One for both would let the next input wait for this task's result.
        self.incoming: torch.cuda.Stream = torch.cuda.Stream(torch_device)  # type: ignore[no-untyped-call]
        self.outgoing: torch.cuda.Stream = torch.cuda.Stream(torch_device)  # type: ignore[no-untyped-call]
        event = self.record(torch.cuda.current_stream(torch_device))
        event.synchronize()
        self.base = event, time.monotonic()
        """The last event that was waited for, and when that was."""

    def record(self, stream: torch.cuda.Stream) -> torch.cuda.Event:
        """An event at the end of what a stream has been asked for; the CPU rests while it waits for it."""
        event: torch.cuda.Event = torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]
        event.record(stream)
        return event

    def upload(self, tensor: Tensor) -> Tensor:
        """Pinned, then copied; the pinned memory is torch's, which uses it again once the copy is done."""
        tasks = torch.cuda.current_stream(self.torch)
        with torch.cuda.stream(self.incoming):
            # Taken in this stream: other memory may be in use by tasks that are still to come.
            there = tensor.pin_memory().to(self.torch, non_blocking=True)
        tasks.wait_stream(self.incoming)
        there.record_stream(tasks)
        return there

    def download(self, tensor: Tensor) -> Copy:
        """Into pinned memory, which the tensor that the copy becomes keeps."""
        self.outgoing.wait_stream(torch.cuda.current_stream(self.torch))
        with torch.cuda.stream(self.outgoing):
            here = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            here.copy_(tensor, non_blocking=True)
        # Its memory may be given back before the copy is done.
        tensor.record_stream(self.outgoing)
        done = self.record(self.outgoing)

        def wait() -> Tensor:
            done.synchronize()
            return here

        return wait

    def mark(self) -> Mark:
        """An event behind the tasks; if it has passed already, when that was by the GPU's clock."""
        event = self.record(torch.cuda.current_stream(self.torch))

        def wait() -> float:
            if event.query():  # type: ignore[no-untyped-call]
                before, then = self.base
                return then + float(before.elapsed_time(event)) / 1000
            event.synchronize()
            self.base = event, time.monotonic()
            return self.base[1]

        return wait


def open_device(torch_device: torch.device) -> Device:
    """The device of that name, for this process."""
    return CudaDevice(torch_device) if torch_device.type == "cuda" else CpuDevice(torch_device)
