"""Pairs of processes that move bytes: plain sockets, plain asyncio streams, and our links, each told when to send.

All pairs of a benchmark live at once and take turns, so that a machine whose speed changes favours none of them, and
each end keeps to a core of its own, as if on another machine: the scheduler would put some pairs on one core.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import statistics
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np
import torch
from numpy.typing import NDArray

from skippipe.transport.inbox import Inbox
from skippipe.transport.links import Links
from skippipe.transport.membership import Limits, Listeners, Membership
from skippipe.transport.message import HEADER, Header, MessageKind, pack, unpack

ROUND_TRIP_BYTES = 100
MOST_MESSAGES = 1 << 16
SECRET = b"b" * 32

Address = tuple[str, int]


def keep_to_core(end: int) -> None:
    """Let this process, end 0 or 1 of the pairs, and the threads that it starts, run on the first or last core only."""
    os.sched_setaffinity(0, {end * (multiprocessing.cpu_count() - 1)})


class SocketPair:
    """One loop.sock_sendall a message, loop.sock_recv_into one buffer: what goodput is compared with."""

    def __init__(self) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        self.buffers: dict[int, bytearray] = {}
        self.loop = asyncio.new_event_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.child = multiprocessing.Process(target=send_on_socket, args=(theirs, listener.getsockname()))
            self.child.start()
            self.connection, _ = listener.accept()
        self.connection.setblocking(False)

    def goodput(self, size: int, count: int) -> float:
        """GB/s of `count` messages of `size` bytes."""
        if size not in self.buffers:
            self.buffers[size] = bytearray(size)
        buffer = memoryview(self.buffers[size])

        async def receive() -> None:
            for _ in range(count):
                view = buffer
                while len(view):
                    view = view[await self.loop.sock_recv_into(self.connection, view) :]

        began = time.perf_counter()
        self.pipe.send((size, count))
        self.loop.run_until_complete(receive())
        return count * size / (time.perf_counter() - began) / 1e9

    def close(self) -> None:
        """End the other process."""
        self.pipe.send(None)
        self.child.join()
        self.connection.close()
        self.loop.close()


def send_on_socket(pipe: Connection, address: Address) -> None:
    """The sending process of SocketPair."""
    keep_to_core(1)
    loop = asyncio.new_event_loop()
    buffers: dict[int, bytearray] = {}
    with socket.create_connection(address) as connection:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while (command := pipe.recv()) is not None:
            size, count = command
            if size not in buffers:
                buffers[size] = bytearray(size)
            data = memoryview(buffers[size])
            for _ in range(count):
                loop.run_until_complete(loop.sock_sendall(connection, data))
    loop.close()


class StreamPair:
    """Plain asyncio streams that answer each message: what round trips are compared with."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.child = multiprocessing.Process(target=echo_on_streams, args=(listener.getsockname(),))
            self.child.start()
            connection, _ = listener.accept()
        self.reader, self.writer = self.loop.run_until_complete(asyncio.open_connection(sock=connection))

    def round_trip(self, count: int) -> float:
        """Median seconds of a round trip."""
        times: list[float] = []

        async def ping() -> None:
            for _ in range(count):
                began = time.perf_counter()
                self.writer.write(bytes(ROUND_TRIP_BYTES))
                await self.writer.drain()
                await self.reader.readexactly(ROUND_TRIP_BYTES)
                times.append(time.perf_counter() - began)

        self.loop.run_until_complete(ping())
        return statistics.median(times)

    def close(self) -> None:
        """End the other process."""
        self.writer.close()
        self.loop.run_until_complete(self.writer.wait_closed())
        self.child.join()
        self.loop.close()


def echo_on_streams(address: Address) -> None:
    """The answering process of StreamPair."""
    keep_to_core(1)

    async def echo() -> None:
        reader, writer = await asyncio.open_connection(*address)
        while data := await reader.read(ROUND_TRIP_BYTES):
            writer.write(data)
            await writer.drain()
        writer.close()

    asyncio.run(echo())


def message(number: int, sender: int) -> Header:
    """Header of a benchmark message."""
    return Header(MessageKind.ACTIVATION, 0, number, sender, 0.0)


Deliver = Callable[[bytes, float, NDArray[np.uint8]], None]
"""Takes what came: its sender's identity, the offset of that one's clock and the message."""


class Switch:
    """Takes messages in the place of the links' own end, which a connection keeps from its beginning on."""

    def __init__(self, usual: Deliver) -> None:
        self.usual = self.to = usual

    def __call__(self, identity: bytes, offset: float, body: NDArray[np.uint8]) -> None:
        """Hand it on."""
        self.to(identity, offset, body)


def open_links(node: int, bootstrap: list[Address], authenticate: bool) -> tuple[Links, Inbox, Listeners, Switch]:
    """A node of two."""
    listeners = Listeners.bind("127.0.0.1")
    senders = {(MessageKind.ACTIVATION, i): 1 - node for i in range(MOST_MESSAGES)}
    inbox = Inbox(senders, lambda sender: 0.0)
    limits = Limits(HEADER.size + (256 << 20), 20.0, 20.0)
    bootstrap = bootstrap or [listeners.address]
    links = Links(Membership(node, 2, SECRET if authenticate else None), listeners, bootstrap, limits, inbox)
    switch = Switch(links.deliver)
    links.deliver = switch  # type: ignore[method-assign]
    links.start()
    return links, inbox, listeners, switch


class LinkPair:
    """Our links between two nodes, with or without a secret."""

    def __init__(self, authenticate: bool) -> None:
        self.links, self.inbox, listeners, self.switch = open_links(0, [], authenticate)
        self.number = 0
        self.pipe, theirs = multiprocessing.Pipe()
        self.child = multiprocessing.Process(target=send_on_links, args=(theirs, listeners.address, authenticate))
        self.child.start()
        self.pipe.recv()
        self.links.connect([1])

    def goodput(self, size: int, count: int) -> float:
        """GB/s of `count` messages of `size` bytes."""
        self.switch.to = self.switch.usual
        began = time.perf_counter()
        self.pipe.send((size, count))
        for _ in range(count):
            self.inbox.take((MessageKind.ACTIVATION, 0, self.number))
            self.number += 1
        return count * size / (time.perf_counter() - began) / 1e9

    def round_trip(self, count: int) -> float:
        """Median seconds of a round trip of 100 bytes, network thread to network thread."""
        self.pipe.send((ROUND_TRIP_BYTES, count))
        self.pipe.recv()
        header, payload = pack(message(0, 0), torch.zeros(ROUND_TRIP_BYTES // 4))
        times: list[float] = []
        done = threading.Event()

        def deliver(_: bytes, __: float, body: NDArray[np.uint8]) -> None:
            unpack(body)
            times.append(time.perf_counter())
            if len(times) <= count:
                self.links.send_now(1, header, payload)
            else:
                done.set()

        self.switch.to = deliver
        self.links.loop.call_soon_threadsafe(self.links.send_now, 1, header, payload)
        assert done.wait(60), "no answer within a minute"
        return float(statistics.median(np.diff(times)))

    def close(self) -> None:
        """End both ends."""
        self.pipe.send(None)
        self.links.close()
        self.child.join()


def send_on_links(pipe: Connection, bootstrap: Address, authenticate: bool) -> None:
    """Node 1 of LinkPair: sends what it is told, and answers round trips."""
    keep_to_core(1)
    torch.set_num_threads(1)
    links, _, _, switch = open_links(1, [bootstrap], authenticate)
    links.connect([0])
    pipe.send("ready")
    tensors: dict[int, torch.Tensor] = {}
    number = 0
    while (command := pipe.recv()) is not None:
        size, count = command
        if size == ROUND_TRIP_BYTES:
            switch.to = answer_at_once(links, 0)
            pipe.send("answering")
            continue
        if size not in tensors:
            tensors[size] = torch.zeros(size // 4)
        for _ in range(count):
            links.send(0, message(number, 1), tensors[size])
            number += 1
        links.drain(60)
    links.close()


def answer_at_once(links: Links, node: int) -> Deliver:
    """Answer each message in the network's thread, as asyncio streams would."""
    header, payload = pack(message(0, 1 - node), torch.zeros(ROUND_TRIP_BYTES // 4))

    def deliver(_: bytes, __: float, body: NDArray[np.uint8]) -> None:
        unpack(body)
        links.send_now(node, header, payload)

    return deliver
