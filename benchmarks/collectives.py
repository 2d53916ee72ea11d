"""All-reduce among replica processes: our encrypted links against gloo's plain sockets, in turns in one run.

`python benchmarks/collectives.py --replicas 3`. torch.distributed is used here only, to compare with. With --megabits
each replica is in a network namespace of its own, whose uplink is slowed down to that (root and iproute2).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import logging
import multiprocessing
import os
import socket
import statistics
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.distributed as distributed
import whole_runs
from shaped_links import NEEDS, can_make_namespaces, host, namespaces, plug_into_switch
from tqdm import trange

from skippipe.transport.addresses import Address
from skippipe.transport.all_reduce import AllReduce, Exact, expected_parts
from skippipe.transport.collective import Identity
from skippipe.transport.inbox import Inbox
from skippipe.transport.links import Links
from skippipe.transport.membership import Limits, Listeners, Membership
from skippipe.transport.message import HEADER
from skippipe.transport.sharing import Sharing, Tree

MB = 1 << 20
COUNTS = {1: 20, 16: 5, 64: 2, 256: 1}
"""All-reduces of each size, in MB, in a turn."""
SECRET = b"b" * 32
START, SYNC = 0, 1
OURS, GLOO = "links", "gloo"
PORT = 4100
CLONE_NEWNET = 0x40000000
"""man 2 setns; Python has it from 3.12 on."""


class Site:
    """Where the replicas are: on loopback, or each in a namespace of its own."""

    def __init__(self, replicas: int, spaces: list[str] | None) -> None:
        self.spaces = spaces
        self.listeners = [] if spaces else [Listeners.bind("127.0.0.1") for _ in range(replicas)]
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.store = int(probe.getsockname()[1])
        self.device = "uplink" if spaces else "lo"

    def address(self, node: int) -> Address:
        """Of a replica's datagrams."""
        return (host(node), PORT) if self.spaces else self.listeners[node].address

    def listen(self, node: int) -> Listeners:
        """The replica's sockets; a process that has a namespace enters it for good."""
        if not self.spaces:
            return self.listeners[node]
        with (Path("/run/netns") / self.spaces[node]).open() as space:
            if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"can't enter the network namespace {self.spaces[node]}")
        return Listeners.bind(host(node), PORT)


class Replica:
    """One replica's links, and its place in a group of gloo's."""

    def __init__(self, node: int, replicas: int, site: Site) -> None:
        self.node, self.members = node, list(range(replicas))
        self.tree = Tree(self.members, node)
        self.iteration = 0
        self.inbox = Inbox({}, lambda sender: 0.0)
        limits = Limits(HEADER.size + 256 * MB, 20.0, 60.0)
        membership = Membership(node, replicas, SECRET)
        self.links = Links(membership, site.listen(node), [site.address(0)], limits, self.inbox)
        self.links.start()
        self.links.connect(member for member in self.members if member != node)
        os.environ["GLOO_SOCKET_IFNAME"] = site.device
        address = f"tcp://{site.address(0)[0]}:{site.store}"
        distributed.init_process_group("gloo", init_method=address, rank=node, world_size=replicas)

    def prepare(self, size: int) -> torch.Tensor:
        """A gradient of so many bytes, whose all-reduce is expected from now on."""
        parts = expected_parts(self.members, self.node, size // 4, Exact())
        self.inbox.collectives = {START: self.tree.expected(1), SYNC: parts}
        return torch.ones(size // 4)

    def run(self, way: str, gradient: torch.Tensor, count: int) -> float:
        """Seconds of so many all-reduces, after all replicas have come."""
        self.links.run(Sharing(self.tree, [0.0]), Identity(self.iteration, START))
        began = time.perf_counter()
        for _ in range(count):
            if way == GLOO:
                distributed.all_reduce(gradient)
                gradient.div_(len(self.members))
            else:
                mean = AllReduce(self.members, self.node, gradient, len(self.members), Exact())
                self.links.run(mean, Identity(self.iteration, SYNC))
            self.iteration += 1
            self.inbox.next_iteration(self.iteration)
        return time.perf_counter() - began


def be_a_replica(node: int, replicas: int, site: Site, pipe: Connection) -> None:
    """A replica's process: does what it is told, and answers with seconds or, asked for memory, with bytes."""
    torch.set_num_threads(1)
    # As the launcher does before it forks nodes: what is imported is not looked through again and again.
    gc.freeze()
    # Replicas end one after the other, which the others would report.
    logging.disable(logging.CRITICAL)
    replica = Replica(node, replicas, site)
    gradient = torch.ones(0)
    pipe.send(0.0)
    while (command := pipe.recv()) is not None:
        way, size, count = command
        if count == 0:
            gradient = replica.prepare(size)
            pipe.send(0.0)
        elif count < 0:
            # 5 resets the peak to what is in use now (man 5 proc).
            Path("/proc/self/clear_refs").write_text("5")
            idle = peak_bytes()
            replica.run(way, gradient, 1)
            pipe.send(peak_bytes() - idle)
        else:
            pipe.send(replica.run(way, gradient, count))
    replica.links.close()
    distributed.destroy_process_group()


def peak_bytes() -> int:
    """Peak resident memory of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


class Replicas:
    """All replicas' processes."""

    def __init__(self, count: int, spaces: list[str] | None = None) -> None:
        context, site = multiprocessing.get_context("fork"), Site(count, spaces)
        self.pipes, self.processes = [], []
        for node in range(count):
            ours, theirs = context.Pipe()
            arguments = (node, count, site, theirs)
            self.processes.append(context.Process(target=be_a_replica, args=arguments))
            self.pipes.append(ours)
            self.processes[-1].start()
        self.answers()

    def answers(self) -> list[float]:
        """What each replica answers."""
        return [float(pipe.recv()) for pipe in self.pipes]

    def tell(self, way: str, size: int, count: int) -> float:
        """Let all do something; the largest answer."""
        for pipe in self.pipes:
            pipe.send((way, size, count))
        return max(self.answers())

    def close(self) -> None:
        """End all processes."""
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join()


def measure(
    replicas: int, sizes: list[int], turns: int, spaces: list[str] | None = None
) -> dict[int, list[tuple[float, float]]]:
    """Milliseconds of an all-reduce over links and over gloo, turn by turn, by size in MB."""
    group = Replicas(replicas, spaces)
    found: dict[int, list[tuple[float, float]]] = {size: [] for size in sizes}
    for turn in trange(-1, turns, desc=f"{replicas} replicas"):
        for size in sizes:
            group.tell("", size * MB, 0)
            for way in (OURS, GLOO):
                group.tell(way, size * MB, 1)
            ours, gloo = (1000 * group.tell(way, size * MB, COUNTS[size]) / COUNTS[size] for way in (OURS, GLOO))
            if turn >= 0:
                found[size].append((ours, gloo))
    group.close()
    return found


def memory(replicas: int, size: int, way: str) -> float:
    """Largest peak of memory above idle during the first all-reduce of so many MB, over its size."""
    group = Replicas(replicas)
    group.tell(way, size * MB, 0)
    peak = group.tell(way, size * MB, -1)
    group.close()
    return peak / (size * MB)


def measure_shaped(
    replicas: int, sizes: list[int], turns: int, megabits: float
) -> dict[int, list[tuple[float, float]]]:
    """The same with each replica on an uplink of so many Mbit/s in and out."""
    names = [f"skippipe-{os.getpid()}-{node}" for node in range(replicas)]
    switch = f"skippipe-{os.getpid()}-switch"
    with namespaces([*names, switch]):
        plug_into_switch(names, switch, [megabits] * replicas)
        return measure(replicas, sizes, turns, names)


def rows(first: str, found: dict[int, list[tuple[float, float]]], replicas: int | None = None) -> list[str]:
    """A row of the table a size, with the memory of so many `replicas` if asked for."""
    lines = []
    for size, turns in found.items():
        ours, gloo = (statistics.median(turn[i] for turn in turns) for i in range(2))
        ratios = [gloo / ours for ours, gloo in turns]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        moved = [f" {memory(replicas, size, way):.2f} |" for way in (OURS, GLOO)] if replicas else []
        times = f"{ours:.1f} ms | {gloo:.1f} ms | {middle:.2f} ({low:.2f} to {high:.2f}) |"
        lines.append(f"| {first} | {size} MB | {times}{''.join(moved)}")
    return lines


def main() -> int:
    """Measure and print a table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=3, help="processes (default: %(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(COUNTS), choices=list(COUNTS), help="in MB")
    parser.add_argument("--turns", type=int, default=8, help="turns of each size (default: %(default)s)")
    parser.add_argument("--megabits", type=float, nargs="+", help="speeds of the replicas' uplinks, a row each")
    arguments = parser.parse_args()
    replicas, sizes, turns = arguments.replicas, arguments.sizes, arguments.turns
    if arguments.megabits and not can_make_namespaces():
        print(f"error: {NEEDS}", file=sys.stderr)
        return 2
    lines = whole_runs.header("All-reduce", " ".join(["python benchmarks/collectives.py", *sys.argv[1:]]))
    columns = ["size", "links, encrypted", "gloo, plain", "gloo's time over ours"]
    if arguments.megabits:
        columns = ["replicas, Mbit/s", *columns]
        found = [
            row
            for megabits in arguments.megabits
            for row in rows(f"{replicas}, {megabits:g}", measure_shaped(replicas, sizes, turns, megabits))
        ]
    else:
        columns = ["replicas", *columns, "memory, links", "memory, gloo"]
        found = rows(str(replicas), measure(replicas, sizes, turns), replicas)
    print("\n".join([*lines, f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *found]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
