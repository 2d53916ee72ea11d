"""Speed of the links between two processes, as ratios to plain sockets in the same run: `python benchmarks/links.py`.

Goodput of 1, 32 and 256 MB messages against a pair that uses loop.sock_sendall and loop.sock_recv_into on one buffer;
round trips of 100 bytes against plain asyncio streams; memory while 256 MB are received.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import platform
import socket
import statistics
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from skippipe.runtime.inbox import Inbox
from skippipe.runtime.links import Links, Listeners
from skippipe.runtime.streams import Limits
from skippipe.runtime.wire import HEADER, Header, MessageKind, pack, unpack

SIZES_MB = {1: 512, 32: 32, 256: 12}
"""Messages sent of each size."""
WARM_UP = 2
"""Of them, at first, without counting: they touch the memory that the others use again."""
ROUND_TRIPS = 2000
ROUND_TRIP_BYTES = 100
SECRET = b"b" * 32
REPEATS = 5


def message(number: int, sender: int) -> Header:
    """Header of a benchmark message."""
    return Header(MessageKind.ACTIVATION, 0, number, sender, time.time())


def open_links(node: int, bootstrap: list[tuple[str, int]], authenticate: bool) -> tuple[Links, Inbox, Listeners]:
    """A node of two."""
    listeners = Listeners.bind("127.0.0.1")
    senders = {(MessageKind.ACTIVATION, i): 1 - node for i in range(1 << 14)}
    inbox = Inbox(senders, lambda sender: 0.0)
    limits = Limits(HEADER.size + (256 << 20), 20.0, 20.0)
    bootstrap = bootstrap or [listeners.address]
    links = Links(node, range(2), listeners, bootstrap, SECRET if authenticate else None, limits, inbox)
    links.start()
    return links, inbox, listeners


def link_sender(pipe: Connection, bootstrap: tuple[str, int], authenticate: bool) -> None:
    """Node 1: sends what it is told, and answers round trips."""
    torch.set_num_threads(1)
    links, _inbox, _ = open_links(1, [bootstrap], authenticate)
    links.connect([0])
    pipe.send("ready")
    number = 0
    while (command := pipe.recv()) is not None:
        size, count = command
        if size == ROUND_TRIP_BYTES:
            links.streams.deliver = answer_at_once(links, 0)
            pipe.send("answering")
            continue
        tensor = torch.zeros(size // 4)
        for _ in range(count):
            links.send(0, message(number, 1), tensor)
            number += 1
        links.drain(60)
    links.close()


def answer_at_once(links: Links, node: int) -> Callable[[NDArray[np.uint8]], None]:
    """Answer each message in the network's thread, as asyncio streams would."""
    header, payload = pack(message(0, 1 - node), torch.zeros(ROUND_TRIP_BYTES // 4))

    def deliver(body: NDArray[np.uint8]) -> None:
        unpack(body)
        links.send_now(node, header, payload)

    return deliver


def goodput(megabytes: int, count: int, began: float) -> float:
    """GB/s of the messages after the warm-up, the last of which came just now."""
    return (count - WARM_UP) * (megabytes << 20) / (time.perf_counter() - began) / 1e9


def measure_links(authenticate: bool, sizes: dict[int, int], round_trips: int) -> dict[str, float]:
    """Goodput in GB/s by size in MB, and the median round trip in ms."""
    links, inbox, listeners = open_links(0, [], authenticate)
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.Process(target=link_sender, args=(theirs, listeners.address, authenticate))
    child.start()
    ours.recv()
    links.connect([1])
    result: dict[str, float] = {}
    number = 0
    for megabytes, count in sizes.items():
        ours.send((megabytes << 20, count))
        began = 0.0
        for i in range(count):
            inbox.take((MessageKind.ACTIVATION, 0, number))
            number += 1
            if i == WARM_UP - 1:
                began = time.perf_counter()
        result[f"{megabytes} MB"] = goodput(megabytes, count, began)
    result["round trip"] = measure_round_trips(links, ours, round_trips)
    ours.send(None)
    child.join()
    links.close()
    return result


def measure_round_trips(links: Links, pipe: Connection, count: int) -> float:
    """Median round trip of 100 bytes in ms, network thread to network thread."""
    pipe.send((ROUND_TRIP_BYTES, count))
    pipe.recv()
    header, payload = pack(message(0, 0), torch.zeros(ROUND_TRIP_BYTES // 4))
    times: list[float] = []
    done = threading.Event()

    def deliver(body: NDArray[np.uint8]) -> None:
        unpack(body)
        times.append(time.perf_counter())
        if len(times) <= count:
            links.send_now(1, header, payload)
        else:
            done.set()

    links.streams.deliver = deliver
    links.loop.call_soon_threadsafe(links.send_now, 1, header, payload)
    done.wait(60)
    return 1000 * statistics.median(np.diff(times))


def socket_sender(address: tuple[str, int], sizes: dict[int, int]) -> None:
    """The plain pair's sender."""

    async def send() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_connection(address) as connection:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for megabytes, count in sizes.items():
                data = memoryview(bytearray(megabytes << 20))
                for _ in range(count):
                    await loop.sock_sendall(connection, data)
                await loop.sock_recv(connection, 1)

    asyncio.run(send())


def measure_sockets(sizes: dict[int, int]) -> dict[str, float]:
    """Goodput of the plain pair in GB/s."""
    result: dict[str, float] = {}

    async def receive(listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        connection, _ = await loop.sock_accept(listener)
        with connection:
            for megabytes, count in sizes.items():
                buffer = memoryview(bytearray(megabytes << 20))
                began = 0.0
                for i in range(count):
                    view = buffer
                    while len(view):
                        view = view[await loop.sock_recv_into(connection, view) :]
                    if i == WARM_UP - 1:
                        began = time.perf_counter()
                result[f"{megabytes} MB"] = goodput(megabytes, count, began)
                await loop.sock_sendall(connection, b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        child = multiprocessing.Process(target=socket_sender, args=(listener.getsockname(), sizes))
        child.start()
        asyncio.run(receive(listener))
        child.join()
    return result


def stream_echo(address: tuple[str, int], count: int) -> None:
    """The plain streams' answering end."""

    async def echo() -> None:
        reader, writer = await asyncio.open_connection(*address)
        for _ in range(count):
            writer.write(await reader.readexactly(100))
            await writer.drain()
        writer.close()

    asyncio.run(echo())


def measure_streams(count: int) -> float:
    """Median round trip of 100 bytes over plain asyncio streams, in ms."""
    times: list[float] = []

    async def ping() -> None:
        done = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for _ in range(count):
                began = time.perf_counter()
                writer.write(bytes(100))
                await writer.drain()
                await reader.readexactly(100)
                times.append(time.perf_counter() - began)
            writer.close()
            done.set()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        child = multiprocessing.Process(target=stream_echo, args=(server.sockets[0].getsockname(), count))
        child.start()
        await done.wait()
        server.close()
        child.join()

    asyncio.run(ping())
    return 1000 * statistics.median(times)


def peak_memory() -> int:
    """Peak resident memory of this process in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def receive_memory(pipe: Connection) -> None:
    """Peak memory above idle while one message of 256 MB is received, over its size."""
    links, inbox, listeners = open_links(0, [], True)
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.Process(target=link_sender, args=(theirs, listeners.address, True))
    child.start()
    ours.recv()
    links.connect([1])
    # 5 resets the peak to what is in use now (man 5 proc); importing torch took more.
    Path("/proc/self/clear_refs").write_text("5")
    idle = peak_memory()
    ours.send((256 << 20, 1))
    inbox.take((MessageKind.ACTIVATION, 0, 0))
    peak = peak_memory()
    ours.send(None)
    child.join()
    links.close()
    pipe.send((peak - idle) / (256 << 20))


def in_process(target: object) -> float:
    """What a function sends back from a fresh process."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=target, args=(theirs,))  # type: ignore[arg-type]
    process.start()
    value = ours.recv()
    process.join()
    return float(value)


def main() -> None:
    """Measure everything several times and print medians as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=REPEATS, help="runs of each measurement; medians are shown")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/links.md"), help="results file to write")
    arguments = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    runs = []
    for _ in range(arguments.repeats):
        plain = measure_sockets(SIZES_MB)
        plain["round trip"] = measure_streams(ROUND_TRIPS)
        runs.append((plain, measure_links(False, SIZES_MB, ROUND_TRIPS), measure_links(True, SIZES_MB, ROUND_TRIPS)))
    rows = ["| what | plain sockets | links, open | ratio | links, authenticated | ratio |", "|---|" + 5 * "---|"]
    for name in (*(f"{size} MB" for size in SIZES_MB), "round trip"):
        plain_value, open_value, sealed = (statistics.median(run[i][name] for run in runs) for i in range(3))
        ratios = [statistics.median(run[i][name] / run[0][name] for run in runs) for i in (1, 2)]
        unit = "ms" if name == "round trip" else "GB/s"
        rows.append(
            f"| {name} | {plain_value:.3f} {unit} | {open_value:.3f} {unit} | {ratios[0]:.2f} |"
            f" {sealed:.3f} {unit} | {ratios[1]:.2f} |"
        )
    memory = in_process(receive_memory)
    text = "\n".join(
        [
            "# Links between two processes",
            "",
            f"`python benchmarks/links.py --repeats {arguments.repeats}`, {time.strftime('%Y-%m-%d')},"
            f" {multiprocessing.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__},"
            f" numpy {np.__version__}. Medians; ratios are taken within a run.",
            "",
            *rows,
            "",
            f"Memory above idle while a message of 256 MB is received: {memory:.2f} times its size.",
            "",
        ]
    )
    print(text)
    arguments.out.write_text(text)


if __name__ == "__main__":
    main()
