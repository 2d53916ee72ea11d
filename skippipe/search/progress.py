"""Progress of a search: a bar a phase with the best time so far, the clock, and Ctrl-C as "enough"."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tqdm import tqdm


class Progress:
    """What solvers report to and ask whether to go on; one object serves a whole search."""

    def __init__(self, show: bool = False) -> None:
        """show draws bars on stderr."""
        self.show = show
        self.stopped = False

    def stop(self) -> None:
        """End every phase at its next step; what was found so far stands."""
        self.stopped = True

    @contextmanager
    def stop_on_interrupt(self) -> Iterator[None]:
        """While inside, the first Ctrl-C stops the search and keeps its result; the second one kills."""

        def handle(_signal: int, _frame: FrameType | None) -> None:
            self.stop()
            signal.signal(signal.SIGINT, previous)

        previous = signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    @contextmanager
    def phase(self, name: str, steps: int, seconds: float) -> Iterator[Phase]:
        """One phase of at most `steps` steps and `seconds` seconds."""
        layout = "{desc:<34} {percentage:3.0f}%|{bar:24}| {elapsed} {postfix}"
        with tqdm(total=steps, desc=name, disable=not self.show, bar_format=layout) as bar:
            yield Phase(self, steps, seconds, bar)

    def quiet_phase(self, steps: int, seconds: float) -> Phase:
        """A phase without a bar, for one of several threads."""
        return Phase(self, steps, seconds, tqdm(disable=True))


class Phase:
    """One part of a search, bounded by steps and by time."""

    def __init__(self, progress: Progress, steps: int, seconds: float, bar: tqdm, whole: Phase | None = None) -> None:
        """Made by Progress.phase, or by `part` of a whole one."""
        self.progress, self.steps, self.bar, self.whole = progress, steps, bar, whole
        self.seconds = max(seconds, 1e-3)
        self.begin = time.monotonic()
        self.done = 0

    @property
    def left(self) -> int:
        """Steps that may still be taken; 0 once the time is over or the search was stopped."""
        over = self.progress.stopped or time.monotonic() - self.begin >= self.seconds
        return 0 if over else self.steps - self.done

    @property
    def fraction(self) -> float:
        """How far the phase is, from 0 to 1, by steps or, if they are bounded, by seconds, whichever is further."""
        return min(1.0, max(self.done / max(self.steps, 1), (time.monotonic() - self.begin) / self.seconds))

    def part(self, fraction: float) -> Phase:
        """A part of this phase, from now on: this fraction of its steps and of its seconds."""
        return Phase(self.progress, int(self.steps * fraction), self.seconds * fraction, self.bar, self)

    def advance(self, steps: int, best: float, what: str = "best") -> None:
        """Count steps and show the best value so far, in seconds."""
        self.done += steps
        if self.whole is not None:
            self.whole.done += steps
        self.bar.set_postfix_str(f"{what} {best:.2f} s", refresh=False)
        self.bar.update(steps)
