"""SIGINT and SIGTERM as something to wait for: an exception in the middle of anything would leave it half done."""

from __future__ import annotations

import os
import signal
from types import TracebackType
from typing import Any, Self

CAUGHT = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):  # noqa: N818
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


class Signals:
    """The signals that came since it was entered; for the main thread."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        for end in (self.reader, self.writer):
            os.set_blocking(end, False)

    def __enter__(self) -> Self:
        self.before: dict[signal.Signals, Any] = {n: signal.signal(n, lambda *_: None) for n in CAUGHT}
        self.wakeup = signal.set_wakeup_fd(self.writer, warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self.wakeup)
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.close()

    def close(self) -> None:
        """Give the file descriptors back."""
        os.close(self.reader)
        os.close(self.writer)

    def fileno(self) -> int:
        """What becomes readable when a signal has come."""
        return self.reader

    def take(self) -> int | None:
        """The next signal that came, if any."""
        try:
            return os.read(self.reader, 1)[0]
        except BlockingIOError:
            return None

    def check(self) -> None:
        """Stopped if a signal has come."""
        number = self.take()
        if number is not None:
            raise Stopped(number)

    def ignore_the_rest(self) -> None:
        """Ignore whatever comes after the end, when the process has nothing left to stop but itself."""
        self.before = dict.fromkeys(self.before, signal.SIG_IGN)

    def leave_to(self, handlers: dict[signal.Signals, signal.Handlers]) -> None:
        """Be a forked child that has handlers of its own; until now the signals were blocked."""
        signal.set_wakeup_fd(-1)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        self.close()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)
