"""What each node of a machine gets of it: a device, and threads to compute with."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from skippipe.runtime.endpoint import Endpoint

logger = logging.getLogger(__name__)

CUDA = "cuda"
"""The device that stands for all GPUs of a machine."""


def device_of(asked: str, place: int, gpus: int) -> str:
    """Torch's name of the device of a machine's node number `place`, counted from 0, if `asked` for one of its GPUs.

    "cuda" goes round the GPUs; without one torch will say so. Any other name, such as "cuda:1", is every node's.
    """
    return f"{CUDA}:{place % gpus}" if asked == CUDA and gpus else asked


def threads_of(asked: int | None, cores: int, nodes: int, emulated: bool) -> int:
    """Threads of each of a machine's nodes, `asked` for or an equal share of its cores.

    Nodes whose times are emulated mostly wait, and what they compute is to take the same however many they are.
    """
    if asked is not None:
        return asked
    return 1 if emulated and nodes > 1 else max(1, cores // nodes)


def own_device(asked: str, endpoint: Endpoint) -> str:
    """The device of a node's process."""
    return device_of(asked, endpoint.node - endpoint.local.start, torch.cuda.device_count())


def take_device(name: str, node: int) -> None:
    """Let this process open no other GPU than its node's, which would cost memory there."""
    device = torch.device(name)
    logger.info("device of node %d: %s", node, name)
    if device.type == CUDA and device.index is not None:
        torch.cuda.set_device(device)


def take_threads(asked: int | None, endpoint: Endpoint, emulated: bool) -> None:
    """Let this process compute with the threads of its node."""
    threads = threads_of(asked, len(os.sched_getaffinity(0)), len(endpoint.local), emulated)
    torch.set_num_threads(threads)
    logger.info("threads of node %d: %d", endpoint.node, threads)
