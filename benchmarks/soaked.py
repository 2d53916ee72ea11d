"""One run of a soak: faults come, what its processes take is sampled, and in the end all must be well."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.disturbing import DisturbedRun
from benchmarks.found import Found, Struck
from benchmarks.soaking import Fault, Planned, Standing, gap_at, victims
from skippipe.errors import UserError
from skippipe.report.run_folder import process_ids
from skippipe.report.views import read_views

TICK_S, SAMPLE_S = 0.05, 5.0
MOST_GAP_S, STUCK_S = 30.0, 120.0
"""Of real time without the end of an iteration, or without a node that a fault may strike: what is allowed, and when
the run is ended."""
PAUSES_S, JOINING_S = (0.2, 4.0), (0.0, 3.0)
"""How long a process stands still, and how soon a new one is killed: between so much and so much."""
CALM_S, CALM_ITERATIONS = 300.0, 3
"""Most time, and iterations, in which all nodes must be back after the last fault."""
END_S = 120.0
"""Most time that a run takes to save and to end."""


class Soaked:
    """A run that faults come to."""

    def __init__(
        self, run: DisturbedRun, nodes: int, spared: frozenset[int], chance: random.Random, found: Found
    ) -> None:
        """`spared` nodes are never killed; whatever is found is added to `found`."""
        self.run, self.nodes, self.spared, self.chance, self.found = run, nodes, spared, chance, found
        self.due: list[tuple[float, Callable[[], object]]] = []
        """What is to be done when."""
        self.awaited: dict[int, int | None] = {}
        """The process ids of nodes whose next process is to be killed."""
        self.stopped: dict[int, int] = {}
        """Of processes that stand still for good, by node."""
        self.moved = self.sampled = 0.0
        self.calm_from: int | None = None
        """The iteration after which all nodes were seen to be members, and were so since."""
        self.earlier = len(found.struck), len(found.gaps), found.seconds
        """What was found before this run: faults, gaps, and seconds of training."""

    def live(self, left: list[Planned], progress: Callable[[], None]) -> None:
        """Take faults off those that are left until there are none, or the run has ended or is stuck."""
        while not self.run.has_begun(self.nodes):
            if self.run.process.poll() is not None:
                raise RuntimeError(f"a run did not begin: {self.run.last_words()}")
            time.sleep(10 * TICK_S)
        self.moved = began = time.monotonic()

        def sum_up_and_progress() -> None:
            self.sum_up(began)
            progress()

        try:
            if self.soak(left, sum_up_and_progress) and self.calm_down():
                self.end()
        finally:
            self.run.kill()
            self.run.look()
            self.sum_up(began)

    def soak(self, left: list[Planned], progress: Callable[[], None]) -> bool:
        """Let faults come; False if the run has ended or is stuck."""
        next_at = time.monotonic()
        while left:
            if not self.wait_until(next_at + left[0].after_s):
                return False
            if self.strike(left[0].fault):
                left.pop(0)
                next_at = time.monotonic()
                progress()
            elif time.monotonic() - next_at > STUCK_S + left[0].after_s:
                self.fail(f"no node for {left[0].fault.name}: too few are back")
                return False
            elif not self.tick():
                return False
        return True

    def wait_until(self, moment: float, ends: Callable[[], bool] = lambda: False) -> bool:
        """Do what is due until then, or until `ends`; False if the run has ended or is stuck."""
        while time.monotonic() < moment and not ends():
            if not self.tick():
                return False
        return True

    def tick(self) -> bool:
        """Do what is due, look and sample; False if the run has ended or is stuck."""
        newest = self.run.newest
        self.run.look()
        now = time.monotonic()
        if self.run.process.poll() is not None:
            self.fail(f"the run has ended: {self.run.last_words()}")
            return False
        if self.run.newest != newest:
            self.moved = now
        elif now - self.moved > STUCK_S:
            self.fail(f"no iteration has ended for {STUCK_S:g} s: {self.run.last_words()}")
            return False
        if now - self.sampled >= SAMPLE_S:
            self.sampled = now
            self.sample()
        self.kill_starting(now)
        for moment, action in [each for each in self.due if each[0] <= now]:
            self.due.remove((moment, action))
            action()
        time.sleep(TICK_S)
        return True

    def kill_starting(self, now: float) -> None:
        """Kill processes that were awaited, a little after they have begun."""
        for node, before in list(self.awaited.items()):
            if (handle := self.run.living(node)) is not None:
                os.close(handle)
                if process_ids(self.run.folder)[node] != before:
                    del self.awaited[node]
                    moment = now + self.chance.uniform(*JOINING_S)
                    self.due.append((moment, lambda node=node: self.run.signal(node, signal.SIGKILL)))

    def standing(self) -> Standing:
        """How things are now; nobody is a member while the newest view is being written."""
        try:
            members = frozenset(read_views(self.run.folder)[-1].members)
        except UserError:
            members = frozenset()
        living = set()
        for node, pid in process_ids(self.run.folder).items():
            if (handle := self.run.living(node)) is not None:
                os.close(handle)
                if self.stopped.get(node) != pid:
                    living.add(node)
        return Standing(self.nodes, members, frozenset(living), self.spared)

    def strike(self, fault: Fault) -> bool:
        """Let a fault come; False if it has to wait."""
        nodes = victims(fault, self.chance, self.standing())
        if not nodes:
            return False
        self.found.struck.append(Struck(fault, nodes, time.monotonic()))
        for node in nodes:
            pid = process_ids(self.run.folder).get(node)
            match fault:
                case Fault.PAUSED:
                    self.pause(node)
                case Fault.STOPPED:
                    assert pid is not None
                    self.stopped[node] = pid
                    self.run.signal(node, signal.SIGSTOP)
                case Fault.CUT:
                    self.run.signal(node, signal.SIGUSR2)
                case _:
                    self.run.signal(node, signal.SIGKILL)
                    if fault is Fault.STARTING:
                        self.awaited[node] = pid
        return True

    def pause(self, node: int) -> None:
        """Let a node's process stand still for a while."""
        handle = self.run.living(node)
        if handle is None:
            return

        def go_on() -> None:
            # It may have been killed meanwhile.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGCONT)
            os.close(handle)

        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGSTOP)
        self.due.append((time.monotonic() + self.chance.uniform(*PAUSES_S), go_on))

    def calm_down(self) -> bool:
        """Wait until all nodes are back for some iterations; False if they are not in time, or the run has ended."""
        if not self.wait_until(time.monotonic() + CALM_S, self.is_calm):
            return False
        if not self.is_calm():
            self.fail(f"only {sorted(self.standing().members)} are back after {CALM_S:g} s")
        return True

    def is_calm(self) -> bool:
        """Whether all nodes have been members for some iterations: whoever has just been struck is one still."""
        if self.awaited or self.due or len(self.standing().members) < self.nodes:
            self.calm_from = None
            return False
        if self.calm_from is None:
            self.calm_from = self.run.newest
        return self.run.newest >= self.calm_from + CALM_ITERATIONS

    def end(self) -> None:
        """End the run by SIGTERM: it must save a whole checkpoint, and leave nothing behind."""
        self.run.process.terminate()
        try:
            code = self.run.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.fail(f"SIGTERM has not ended it within {END_S:g} s: {self.run.last_words()}")
            return
        if code != 128 + signal.SIGTERM:
            self.fail(f"SIGTERM has ended it with exit code {code}: {self.run.last_words()}")
        if left := self.run.left_behind():
            self.fail(f"processes {left} are left")

    def sum_up(self, began: float) -> None:
        """Say what this run has come to so far, in place of what was said of it before."""
        found, ended = self.found, [began, *sorted(self.run.ended.values())]
        faults, gaps, seconds = self.earlier
        found.seconds = seconds + time.monotonic() - began
        found.gaps[gaps:] = [later - earlier for earlier, later in itertools.pairwise(ended)]
        for each in found.struck[faults:]:
            each.gap_s = gap_at(ended, each.moment)

    def fail(self, what: str) -> None:
        """Note a failure, and what came shortly before."""
        lately = [each for each in self.found.struck[-3:] if time.monotonic() - each.moment < MOST_GAP_S]
        after = ", ".join(f"{each.fault.name} of {' '.join(map(str, each.nodes))}" for each in lately)
        where = f"{self.run.folder.name}, iteration {self.run.newest + 1}, after {len(self.found.struck)} faults"
        self.found.failed.append(f"{where}{f' (lately {after})' if after else ''}: {what}")

    def sample(self) -> None:
        """Note what the launcher and the spared nodes take."""
        pids = process_ids(self.run.folder)
        watched = {"launcher": self.run.process.pid, **{f"node {node}": pids[node] for node in self.spared}}
        for name, pid in watched.items():
            for taken in taken_by(pid):
                self.found.samples[f"{self.run.folder.name}, {name}"].append(taken)


def taken_by(pid: int) -> Iterator[tuple[float, int]]:
    """Anonymous memory of a process in MB and its descriptors; nothing if it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        memory = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        if memory is not None:
            yield int(memory[1]) / 1000, len(os.listdir(f"/proc/{pid}/fd"))
