"""Speed of the links between two processes, as ratios to plain sockets in the same run: `python benchmarks/links.py`.

Goodput of 1, 32 and 256 MB messages against a pair that uses loop.sock_sendall and loop.sock_recv_into on one buffer;
round trips of 100 bytes against plain asyncio streams; memory while 256 MB are received.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from link_pairs import LinkPair, SocketPair, StreamPair, keep_to_core
from tqdm import trange
from whole_runs import hardware

MB = 1 << 20
SIZES_MB = {1: 256, 32: 16, 256: 6}
"""Messages of each size in a turn."""
WARM_UP = 3
"""Messages of each size sent before, without counting: they touch the memory that the others use again."""
ROUND_TRIPS = 300
"""In a turn."""
TURNS = 40


def measure(turns: int) -> dict[str, list[tuple[float, float, float]]]:
    """What plain pair, open links and encrypted ones reached in each turn: GB/s by size, ms of a round trip."""
    keep_to_core(0)
    sockets, streams = SocketPair(), StreamPair()
    links = LinkPair(False), LinkPair(True)
    values: dict[str, list[tuple[float, float, float]]] = {f"{size} MB": [] for size in SIZES_MB}
    values["round trip"] = []
    for pair in (sockets, *links):
        for size in SIZES_MB:
            pair.goodput(size * MB, WARM_UP)
    for _ in trange(turns, desc="turns"):
        for size, count in SIZES_MB.items():
            first, second, third = (pair.goodput(size * MB, count) for pair in (sockets, *links))
            values[f"{size} MB"].append((first, second, third))
        first, second, third = (1000 * pair.round_trip(ROUND_TRIPS) for pair in (streams, *links))
        values["round trip"].append((first, second, third))
    for pair in (sockets, streams, *links):
        pair.close()
    return values


def peak_memory() -> int:
    """Peak resident memory of this process in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def receive_memory(pipe: Connection) -> None:
    """Peak memory above idle while one message of 256 MB is received, over its size."""
    pair = LinkPair(True)
    # 5 resets the peak to what is in use now (man 5 proc); importing torch took more.
    Path("/proc/self/clear_refs").write_text("5")
    idle = peak_memory()
    pair.goodput(256 * MB, 1)
    pipe.send((peak_memory() - idle) / (256 * MB))
    pair.close()


def in_process(target: Callable[[Connection], None]) -> float:
    """What a function sends back from a fresh process."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=target, args=(theirs,))
    process.start()
    value = ours.recv()
    process.join()
    return float(value)


def rows(values: dict[str, list[tuple[float, float, float]]]) -> list[str]:
    """The table: medians, and medians and quartiles of the ratios within a turn."""
    lines = ["| what | plain | links, open | ratio | links, encrypted | ratio |", "|---|" + 5 * "---|"]
    for name, turns in values.items():
        unit = "ms" if name == "round trip" else "GB/s"
        plain, opened, sealed = (f"{statistics.median(turn[i] for turn in turns):.3f} {unit}" for i in range(3))
        ratios = [spread([turn[i] / turn[0] for turn in turns]) for i in (1, 2)]
        lines.append(f"| {name} | {plain} | {opened} | {ratios[0]} | {sealed} | {ratios[1]} |")
    return lines


def spread(ratios: list[float]) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Measure everything in turns and print medians as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=TURNS, help="turns of each pair, 2 or more (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/links.md"), help="results file to write")
    arguments = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    values = measure(arguments.turns)
    memory = in_process(receive_memory)
    text = "\n".join(
        [
            "# Links between two processes",
            "",
            f"`python benchmarks/links.py --turns {arguments.turns}`, {time.strftime('%Y-%m-%d')},"
            f" {hardware()}, Python {platform.python_version()}, torch {torch.__version__},"
            f" numpy {np.__version__}. Medians. The pairs take turns of a fraction of a second; ratios are taken within"
            " a turn, their quartiles in brackets.",
            "",
            *rows(values),
            "",
            f"Memory above idle while a message of 256 MB is received: {memory:.2f} times its size.",
            "",
        ]
    )
    print(text)
    arguments.out.write_text(text)


if __name__ == "__main__":
    main()
