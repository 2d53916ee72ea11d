"""Reading from a connection's socket, as bytes come or a record at a time, and writing a few bytes without waiting."""

from __future__ import annotations

import asyncio
import logging
import socket
import traceback
from collections.abc import Callable

from skippipe.transport.records import HEAD, TAG_BYTES, RecordKind, RecordStream, record_shape

logger = logging.getLogger(__name__)

TURN_BYTES = 1 << 23
"""What one connection may read before the others get their turn."""
LOOK_SECONDS = 0.2
"""How often a socket that wakes us for many bytes only is looked at: on a slow link they take long to come."""


class SocketReader:
    """Feeds a record stream whenever a socket has bytes, until something is raised; `ended` then holds it."""

    def __init__(self, connection: socket.socket, stream: RecordStream, after: Callable[[], None]) -> None:
        """`after` is called after each turn of reading."""
        self.connection = connection
        self.stream = stream
        self.after = after
        self.wakes_for = 1
        self.look: asyncio.TimerHandle | None = None
        """The next time that it is looked at, whatever has come."""
        self.loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self.loop.create_future()
        self.loop.add_reader(connection, self.on_readable)

    def on_readable(self) -> None:
        """The socket has bytes, or was closed."""
        try:
            self.read()
        except (BlockingIOError, InterruptedError):
            pass
        except Exception as error:
            # Its frames hold the buffers for as long as somebody holds it.
            traceback.clear_frames(error.__traceback__)
            self.stop(error)
            return
        self.wake_for(self.stream.worth_waking)
        if self.wakes_for > 1 and self.look is None:
            self.look = self.loop.call_later(LOOK_SECONDS, self.look_again)
        self.after()

    def look_again(self) -> None:
        """Take what has come, though it was not worth waking for."""
        self.look = None
        self.on_readable()

    def read(self) -> None:
        """Read until the socket is empty or the turn is over; ConnectionError if no more will come."""
        turn = 0
        while turn < TURN_BYTES:
            room = self.stream.room()
            count = self.connection.recv_into(room)
            if count == 0:
                raise ConnectionError("closed by the other end")
            self.stream.received(count)
            if count < len(room):
                break
            turn += count

    def wake_for(self, count: int) -> None:
        """Be called for so many bytes, not for fewer."""
        if count != self.wakes_for and self.connection.fileno() >= 0:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
            self.wakes_for = count

    def stop(self, error: Exception) -> None:
        """Stop reading, for a reason."""
        self.close()
        if not self.ended.done():
            self.ended.set_exception(error)

    def close(self) -> None:
        """Stop reading, for good."""
        self.stream.close()
        if self.look is not None:
            self.look.cancel()
        if self.connection.fileno() >= 0:
            self.loop.remove_reader(self.connection)
        if self.ended.done() and not self.ended.cancelled():
            # Whoever waited for it has gone; the error is not news to anybody.
            self.ended.exception()


async def receive(connection: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes and no more; ConnectionError if the other end closes before."""
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        part = await loop.sock_recv(connection, size - len(data))
        if not part:
            raise ConnectionError("closed by the other end")
        data += part
    return data


async def receive_record(connection: socket.socket) -> tuple[RecordKind, bytes, memoryview]:
    """Kind, head, and sealed content of the next record; AuthenticationError for what no peer writes."""
    head = await receive(connection, HEAD.size)
    kind, size = record_shape(head)
    return kind, head, memoryview(await receive(connection, size + TAG_BYTES))


def shut_down(connection: socket.socket) -> None:
    """Wake whoever reads from a socket of which the other end may be gone already."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        logger.debug("shutting down a connection: %s", error)


def send_at_once(connection: socket.socket, data: bytes) -> None:
    """Send a few bytes without waiting; if the socket takes only part of them, the connection is of no more use."""
    try:
        sent = connection.send(data)
    except OSError as error:
        logger.debug("acknowledging: %s", error)
        sent = 0
    if sent < len(data):
        shut_down(connection)
