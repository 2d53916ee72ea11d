"""The way to one peer: frames go in, a task connects, sends, and sends again what a broken connection lost."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine

from skippipe.transport.beat import Beat, unpack_answer
from skippipe.transport.clocks import ClockOffset
from skippipe.transport.connected import Connect, Connected, RefusedError, ReportLost, Surroundings
from skippipe.transport.discovery import PeerNotFoundError
from skippipe.transport.framing import (
    ONE_WRITE_BYTES,
    Frame,
    frame_record,
    frame_records,
    unpack_refusal,
    unpack_state,
)
from skippipe.transport.identity import AuthenticationError
from skippipe.transport.life import Life, Refusals
from skippipe.transport.message import MalformedMessageError
from skippipe.transport.records import RecordKind, RecordStream
from skippipe.transport.sockets import SocketReader

logger = logging.getLogger(__name__)

SHORTEST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.05, 2.0
REFUSED_SECONDS = 5.0


class Sender:
    """Sends to one peer; made in the event loop, where all of it runs."""

    def __init__(self, node: int, connect: Connect, report_lost: ReportLost, around: Surroundings) -> None:
        self.node = node
        self.connect = connect
        self.report_lost = report_lost
        self.around = around
        self.name = f"node {node}"
        self.waiting: deque[Frame] = deque()
        self.unacknowledged: deque[Frame] = deque()
        self.sequence = 0
        self.partial = 0
        """Bytes that the peer has of the first waiting frame."""
        self.left_over = b""
        """Bytes that must go to the socket before the next record."""
        self.idle: Connected | None = None
        """The open connection, while nothing is being sent on it."""
        self.offset = ClockOffset()
        """How far the peer's clock is ahead."""
        self.changed = asyncio.Event()
        self.connected = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.life = Life(self.loop.time())
        self.refusals = Refusals()
        self.next_beat = 0.0
        self.retry_seconds = SHORTEST_RETRY_SECONDS
        self.stale = 0
        """Frames up to this one are of no use to another process of the peer."""
        self.is_resting = False
        """Whether the peer was lost and nothing has been sent since."""
        self.parting = False
        """Whether the peer is about to leave, so that a broken link is no news."""
        self.task = self.start(self.keep_going())

    def start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """A task that sends; if it ends by a mistake of the program the peer is as good as lost."""

        def look_why(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            if error is not None:
                logger.error("sending to %s failed", self.name, exc_info=error)
                self.report_lost(self.node, f"sending to {self.name} failed: {error!r}")

        task = asyncio.create_task(work)
        task.add_done_callback(look_why)
        return task

    def let_go(self) -> None:
        """The peer is lost: rest until something is sent again, perhaps to another process of it."""
        self.is_resting, self.stale = True, self.sequence
        self.task.cancel()

    def wake(self) -> None:
        """Try again if the peer was lost or given up."""
        if self.is_resting or self.task.done():
            self.is_resting = False
            self.connected.clear()
            self.life.heard_at = self.loop.time()
            self.retry_seconds = SHORTEST_RETRY_SECONDS
            self.task = self.start(self.begin_after(self.task))

    async def begin_after(self, before: asyncio.Task[None]) -> None:
        """Connect and send once the task before has ended."""
        await asyncio.gather(before, return_exceptions=True)
        # Each task would hold the one before it, and its connection, however often the peer is lost and comes back.
        del before
        await self.keep_going()

    def send(self, header: bytes, payload: memoryview) -> None:
        """Queue a message; its memory must stay as it is until the peer has acknowledged it."""
        self.sequence += 1
        self.life.queue(self.sequence, self.loop.time())
        frame = (self.sequence, header, payload)
        if self.idle is not None and len(payload) <= ONE_WRITE_BYTES:
            self.send_at_once(frame, self.idle)
        else:
            # Whatever comes next must not overtake it.
            self.idle = None
            self.waiting.append(frame)
            self.changed.set()

    def send_at_once(self, frame: Frame, idle: Connected) -> None:
        """Give a small frame to an idle connection's socket; what it does not take is left to the sending task."""
        self.unacknowledged.append(frame)
        data = frame_record(frame, idle.session.sealer)
        try:
            sent = idle.connection.send(data)
        except OSError:
            # Full or broken: the task will find out which.
            sent = 0
        if sent < len(data):
            self.idle = None
            self.left_over = data[sent:]
            self.changed.set()

    async def keep_going(self) -> None:
        """Connect and send until the peer is given up."""
        while True:
            patience = self.around.silence_seconds if self.connected.is_set() else self.around.first_seconds
            try:
                connected = await self.connect(self.life.heard_at + patience, self.offset)
            except RefusedError as error:
                self.report_lost(self.node, f"{self.name} refuses to be connected to: {error}")
                return
            except (OSError, AuthenticationError, MalformedMessageError, PeerNotFoundError) as error:
                if self.must_give_up(error, patience):
                    return
                await self.pause()
                continue
            if connected.is_another:
                self.begin_again()
            self.life.connected(self.loop.time())
            self.resume_after(connected)
            self.connected.set()
            try:
                await self.exchange(connected)
            except RefusedError as error:
                self.report_lost(self.node, f"{self.name} refuses what this node sends: {error}")
                return
            except (OSError, AuthenticationError, MalformedMessageError) as error:
                if self.must_give_up(error, self.around.silence_seconds):
                    return
                level = logging.DEBUG if self.parting else logging.WARNING
                logger.log(level, "link to %s broke (%s); connecting again", self.name, error or type(error).__name__)
                await self.pause()
            finally:
                connected.connection.close()

    def must_give_up(self, error: Exception, patience: float) -> bool:
        """Whether the peer has been without life for too long; it is then reported as lost."""
        silent = self.life.silent(self.loop.time())
        # A host that answers, but has nobody at a port that somebody had, says that the process is gone.
        refused = isinstance(error, ConnectionRefusedError) and self.connected.is_set() and silent >= REFUSED_SECONDS
        if silent < patience and not refused:
            return False
        reason = f"{type(error).__name__} {error}".strip()
        self.report_lost(self.node, f"{self.name} can't be reached for {silent:.0f} s ({reason})")
        return True

    async def pause(self) -> None:
        """Wait before the next attempt, longer each time until the peer takes something again."""
        await asyncio.sleep(self.retry_seconds)
        self.retry_seconds = min(2 * self.retry_seconds, LONGEST_RETRY_SECONDS)

    def begin_again(self) -> None:
        """Number frames from the start, without those that are of no use to another process of the peer."""
        frames = [frame for frame in (*self.unacknowledged, *self.waiting) if frame[0] > self.stale]
        self.unacknowledged.clear()
        self.waiting = deque((number, *frame[1:]) for number, frame in enumerate(frames, start=1))
        self.sequence, self.stale = len(frames), 0
        self.life, self.refusals = Life(self.loop.time()), Refusals()
        self.life.queue(self.sequence, self.loop.time())

    def resume_after(self, connected: Connected) -> None:
        """Queue again what the peer has not got; begin with the part that it has not got."""
        again = [frame for frame in self.unacknowledged if frame[0] > connected.delivered]
        self.unacknowledged.clear()
        self.waiting.extendleft(reversed(again))
        self.acknowledge(connected.delivered, connected.partial)
        self.partial = connected.partial
        self.next_beat = 0.0

    async def exchange(self, connected: Connected) -> None:
        """Send frames and read what comes back until the connection breaks (raises why)."""

        def take(kind: RecordKind, head: bytes, sealed: memoryview) -> None:
            self.take(kind, connected.session.opener.open(head, sealed))

        stream = RecordStream(self.around.buffers, take)
        reader = SocketReader(connected.connection, stream, lambda: None)
        sending = asyncio.create_task(self.send_frames(connected))
        try:
            while True:
                looked_at = self.loop.time()
                done, _ = await asyncio.wait(
                    (sending, reader.ended),
                    timeout=self.around.beat_seconds,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for ended in sorted(done, key=lambda ended: ended is sending):
                    ended.result()
                now = self.loop.time()
                self.life.excuse(now - looked_at - self.around.beat_seconds, now)
                if self.life.silent(now) > self.around.silence_seconds:
                    raise TimeoutError("takes nothing" if self.life.owed else "silent, even to heartbeats")
        finally:
            reader.close()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    def take(self, kind: RecordKind, content: bytes) -> None:
        """Take a record that came back; RefusedError if the peer has refused the same frame before."""
        if kind is RecordKind.STATE:
            self.acknowledge(*unpack_state(content))
        elif kind is RecordKind.ANSWER:
            sent, answered = unpack_answer(content)
            self.life.answered(self.loop.time())
            self.offset.sample(sent, answered, self.around.clock.wire(self.around.clock.now()))
        elif kind is RecordKind.REFUSED:
            sequence, reason = unpack_refusal(content)
            if self.refusals.another(sequence):
                raise RefusedError(reason)
            logger.warning("%s refused frame %d: %s", self.name, sequence, reason)
        else:
            raise MalformedMessageError(f"a record of kind {kind.name} from the end that accepted")

    def acknowledge(self, delivered: int, partial: int) -> None:
        """The peer has every frame up to this one, and so much of the next."""
        if delivered > self.life.delivered:
            self.retry_seconds = SHORTEST_RETRY_SECONDS
        self.life.acknowledged(delivered, partial, self.loop.time())
        while self.unacknowledged and self.unacknowledged[0][0] <= delivered:
            self.unacknowledged.popleft()

    async def send_frames(self, connected: Connected) -> None:
        """Send what waits, and heartbeats in time."""
        self.left_over = b""
        while True:
            await self.send_rest(connected)
            if self.waiting:
                frame = self.waiting.popleft()
                self.unacknowledged.append(frame)
                offset, self.partial = self.partial, 0
                await self.send_frame(frame, offset, connected)
            else:
                await self.rest(connected)

    async def send_rest(self, connected: Connected) -> None:
        """Send what is left over, and a heartbeat if it is time."""
        sealer = connected.session.sealer
        if self.loop.time() >= self.next_beat:
            self.next_beat = self.loop.time() + self.around.beat_seconds
            self.left_over += sealer.seal(RecordKind.BEAT, self.beat())
        if self.left_over:
            data, self.left_over = self.left_over, b""
            await self.loop.sock_sendall(connected.connection, data)

    async def send_frame(self, frame: Frame, offset: int, connected: Connected) -> None:
        """Send a frame, from a place in its body on."""
        sequence, header, payload = frame
        if len(payload) <= ONE_WRITE_BYTES:
            await self.loop.sock_sendall(connected.connection, frame_record(frame, connected.session.sealer))
            return
        if offset and not len(header) <= offset <= len(header) + len(payload):
            raise MalformedMessageError(f"{offset} bytes of frame {sequence}, which has {len(header) + len(payload)}")
        with self.around.in_step.writer(self.node, connected.connection, header) as write:
            for record in frame_records(frame, connected.session.sealer, offset, self.around.buffers):
                await write(record)
                if self.loop.time() >= self.next_beat:
                    await self.send_rest(connected)

    def beat(self) -> bytes:
        """A heartbeat's content."""
        clock = self.around.clock
        return Beat(clock.wire(clock.now()), self.offset.seconds, self.offset.error, self.around.work.pack()).pack()

    async def rest(self, connected: Connected) -> None:
        """Wait for something to send, or for the next heartbeat's time."""
        self.changed.clear()
        self.idle = connected
        try:
            # Not wait_for: before Python 3.12 it may swallow a cancellation.
            async with asyncio.timeout(max(0.0, self.next_beat - self.loop.time())):
                await self.changed.wait()
        except TimeoutError:
            pass
        finally:
            self.idle = None
