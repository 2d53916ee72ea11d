"""All-reduce among replica processes: our encrypted links against gloo's plain sockets, in turns in one run.

`python benchmarks/collectives.py --replicas 3`. torch.distributed is used here only, to compare with.
"""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import os
import socket
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.distributed as distributed
import whole_runs
from tqdm import trange

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


class Replica:
    """One replica's links, and its place in a group of gloo's."""

    def __init__(self, node: int, listeners: list[Listeners], store: int) -> None:
        self.node, self.members = node, list(range(len(listeners)))
        self.tree = Tree(self.members, node)
        self.iteration = 0
        self.inbox = Inbox({}, lambda sender: 0.0)
        limits = Limits(HEADER.size + 256 * MB, 20.0, 60.0)
        membership = Membership(node, len(listeners), SECRET)
        self.links = Links(membership, listeners[node], [listeners[0].address], limits, self.inbox)
        self.links.start()
        self.links.connect(member for member in self.members if member != node)
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        address = f"tcp://127.0.0.1:{store}"
        distributed.init_process_group("gloo", init_method=address, rank=node, world_size=len(listeners))

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


def be_a_replica(node: int, listeners: list[Listeners], store: int, pipe: Connection) -> None:
    """A replica's process: does what it is told, and answers with seconds or, asked for memory, with bytes."""
    torch.set_num_threads(1)
    # As the launcher does before it forks nodes: what is imported is not looked through again and again.
    gc.freeze()
    # Replicas end one after the other, which the others would report.
    logging.disable(logging.CRITICAL)
    replica = Replica(node, listeners, store)
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

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("fork")
        listeners = [Listeners.bind("127.0.0.1") for _ in range(count)]
        with socket.create_server(("127.0.0.1", 0)) as probe:
            store = int(probe.getsockname()[1])
        self.pipes, self.processes = [], []
        for node in range(count):
            ours, theirs = context.Pipe()
            arguments = (node, listeners, store, theirs)
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


def measure(replicas: int, sizes: list[int], turns: int) -> dict[int, list[tuple[float, float]]]:
    """Milliseconds of an all-reduce over links and over gloo, turn by turn, by size in MB."""
    group = Replicas(replicas)
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


def rows(replicas: int, found: dict[int, list[tuple[float, float]]]) -> list[str]:
    """A row of the table a size."""
    lines = []
    for size, turns in found.items():
        ours, gloo = (statistics.median(turn[i] for turn in turns) for i in range(2))
        ratios = [gloo / ours for ours, gloo in turns]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        moved = [memory(replicas, size, way) for way in (OURS, GLOO)]
        lines.append(
            f"| {replicas} | {size} MB | {ours:.1f} ms | {gloo:.1f} ms | {middle:.2f} ({low:.2f} to {high:.2f}) |"
            f" {moved[0]:.2f} | {moved[1]:.2f} |"
        )
    return lines


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=3, help="processes (default: %(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(COUNTS), choices=list(COUNTS), help="in MB")
    parser.add_argument("--turns", type=int, default=8, help="turns of each size (default: %(default)s)")
    arguments = parser.parse_args()
    found = measure(arguments.replicas, arguments.sizes, arguments.turns)
    sizes = " ".join(map(str, arguments.sizes))
    command = f"--replicas {arguments.replicas} --sizes {sizes} --turns {arguments.turns}"
    lines = whole_runs.header("All-reduce", f"python benchmarks/collectives.py {command}")
    lines += [
        "| replicas | size | links, encrypted | gloo, plain | gloo's time over ours | memory, links | memory, gloo |",
        "|---|" + 6 * "---|",
        *rows(arguments.replicas, found),
    ]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
