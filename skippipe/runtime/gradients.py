"""Data-parallel sync of a stage's replicas and the figures that all nodes share, over torch.distributed."""

from __future__ import annotations

import datetime
import fcntl
import logging
import os
import socket
import struct

import torch
import torch.distributed as distributed

from skippipe.model.optimizer import StageOptimizer
from skippipe.runtime.emulation import Emulation, RunClock, sleep_until
from skippipe.runtime.endpoint import Endpoint
from skippipe.schedule import Plan

logger = logging.getLogger(__name__)

SIOCGIFADDR = 0x8915
"""Linux ioctl that reads an interface's IPv4 address (man 7 netdevice)."""


class Group:
    """All nodes of the run, and within them the replicas of this node's stage."""

    def __init__(self, endpoint: Endpoint, plan: Plan, timeout_s: float) -> None:
        """Meet all the others; torch.distributed.DistError if they don't come in time."""
        self.nodes = endpoint.nodes
        meet(endpoint, timeout_s)
        timeout = datetime.timedelta(seconds=timeout_s)
        self.replicas = next(stage for stage in plan.stages if endpoint.node in stage)
        self.stage_group = distributed.new_group(list(self.replicas), use_local_synchronization=True, timeout=timeout)

    def sync(
        self, optimizer: StageOptimizer, visits: int, last_backward: float, emulation: Emulation, clock: RunClock
    ) -> float:
        """Average the stage's gradient over its replicas and microbatches; the monotonic time when it is done.

        The emulated sync begins when the last replica's last backward is done (docs/architecture.md).
        """
        if len(self.replicas) > 1:
            latest = torch.tensor([clock.shared(last_backward)], dtype=torch.float64)
            distributed.all_reduce(latest, distributed.ReduceOp.MAX, group=self.stage_group)
            # It lies in the past, whatever the clocks' offset is taken for: nobody waits for another's clock.
            last_backward = min(clock.local(float(latest)), clock.now())
            buffer = optimizer.flat.cpu()
            distributed.all_reduce(buffer, group=self.stage_group)
            if buffer is not optimizer.flat:
                optimizer.flat.copy_(buffer)
        optimizer.average(visits)
        done = last_backward + emulation.sync_s
        sleep_until(done)
        return max(done, clock.now())

    def share(self, figures: list[float]) -> list[list[float]]:
        """Every node's figures, node by node."""
        return share(figures, self.nodes)

    def close(self) -> None:
        """Leave the groups."""
        distributed.destroy_process_group()


def meet(endpoint: Endpoint, timeout_s: float) -> None:
    """Join torch.distributed's default group of all nodes; node 0 serves the store."""
    os.environ["GLOO_SOCKET_IFNAME"] = interface_of(endpoint.peers.host)
    timeout = datetime.timedelta(seconds=timeout_s)
    rendezvous = endpoint.rendezvous
    serves = endpoint.node == 0
    listener = rendezvous.listener.detach() if serves and rendezvous.listener is not None else None
    store = distributed.TCPStore(  # type: ignore[attr-defined]
        rendezvous.host,
        rendezvous.port,
        endpoint.nodes,
        is_master=serves,
        timeout=timeout,
        wait_for_workers=False,
        master_listen_fd=listener,
    )
    distributed.init_process_group("gloo", store=store, rank=endpoint.node, world_size=endpoint.nodes, timeout=timeout)


def share(figures: list[float], nodes: int) -> list[list[float]]:
    """Every node's figures, node by node; all nodes must call it with as many."""
    mine = torch.tensor(figures, dtype=torch.float64)
    everyone = [torch.empty_like(mine) for _ in range(nodes)]
    distributed.all_gather(everyone, mine)
    return [row.tolist() for row in everyone]


def interface_of(host: str) -> str:
    """Name of the network interface that has this IPv4 address: gloo would guess one from the host's name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)
            except OSError:
                continue
            address = socket.inet_ntoa(answer[20:24])
            if address == host or (host.startswith("127.") and address.startswith("127.")):
                return name
    raise RuntimeError(f"no network interface has the address {host}")
