"""The thread of a node's links, with its event loop: what fails in it unexpectedly is told, not swallowed."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from skippipe.errors import UserError

CLOSE_SECONDS = 5.0


class NetworkThread:
    """An event loop in a thread of its own; every method is called from another one."""

    def __init__(self, failed: Callable[[str], None]) -> None:
        """`failed` is told in the loop why the links can't be relied on any more."""
        self.failed = failed
        # libuv's loop takes a quarter less processor time than asyncio's own for small messages.
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self.loop.set_exception_handler(self.on_exception)
        self.thread = threading.Thread(target=self.run, name="network", daemon=True)

    def start(self, opening: Coroutine[Any, Any, None], seconds: float, what: str) -> None:
        """Start the thread, and wait until `opening` is done in it; UserError if that takes so many seconds."""
        self.thread.start()
        self.opened = asyncio.run_coroutine_threadsafe(opening, self.loop)
        try:
            self.opened.result(seconds)
        except TimeoutError:
            raise UserError(
                f"peers.connect_seconds: {what} did not open in {seconds:g} s;"
                " start fewer nodes on this machine, or give them more time"
            ) from None

    def run(self) -> None:
        """The thread's work."""
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()

    def on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Something raised what nobody awaits: a callback has not done its work, and somebody may wait for that."""
        loop.default_exception_handler(context)
        if "handle" in context:
            self.failed(f"the network thread failed: {context['exception']!r}")

    def stop(self, closing: Coroutine[Any, Any, None]) -> None:
        """Undo the opening, if it got to its end, and end the thread."""
        if not self.thread.is_alive():
            closing.close()
            return
        concurrent.futures.wait([self.opened], CLOSE_SECONDS)
        if self.opened.done() and self.opened.exception() is None:
            with contextlib.suppress(TimeoutError):
                asyncio.run_coroutine_threadsafe(closing, self.loop).result(CLOSE_SECONDS)
        else:
            closing.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(CLOSE_SECONDS)


def check_end(task: asyncio.Task[None]) -> None:
    """A task that should have no end has one: raise why, unless it was cancelled (as a callback of the task)."""
    if not task.cancelled():
        task.result()
