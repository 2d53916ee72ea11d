"""A run that is disturbed from outside: how far it is, signals to its nodes' processes, and what is left at its end."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from skippipe.report.run_folder import log_file, process_ids
from skippipe.report.timeline import TIMELINE

PR_SET_PDEATHSIG = 1
TICK_S = 0.005
END_SECONDS = 60.0
"""Most time that a launcher gets to end its nodes."""


class DisturbedRun:
    """A launcher that was started in a session of its own, with nodes from 0 on."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        """`folder` is the run's."""
        self.process, self.folder = process, folder
        self.read_bytes = 0
        """Of the timeline."""
        self.ended: dict[int, float] = {}
        """When each iteration was first seen to have ended at a node, in monotonic seconds."""

    @classmethod
    def start(cls, command: Sequence[str], folder: Path, tree: Path | None = None) -> DisturbedRun:
        """Start a command that runs in `folder`; what it prints goes to a file beside the folder.

        `tree` has the sources of the build that it runs, if not these.
        """
        folder.parent.mkdir(parents=True, exist_ok=True)
        own = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        if tree is not None:
            own["PYTHONPATH"] = str(tree)
        with output_of(folder).open("w") as output:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                preexec_fn=end_with_parent,
                cwd=tree,
                env={**os.environ, **own},
            )
        return cls(process, folder)

    @property
    def newest(self) -> int:
        """The last iteration that has ended at a node, as of the last look; -1 if none has."""
        return max(self.ended, default=-1)

    def look(self) -> None:
        """Note the iterations that have ended since: each node adds its tasks to the timeline after its step."""
        path = self.folder / TIMELINE
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self.read_bytes)
            lines = file.read().rpartition(b"\n")[0].splitlines(keepends=True)
        now = time.monotonic()
        for line in lines:
            self.ended.setdefault(json.loads(line)["iteration"], now)
        # The end of the last line was cut off with it.
        self.read_bytes += sum(map(len, lines)) + bool(lines)

    def wait(self, moment: float, step_s: float) -> None:
        """Until so many steps after the end of the first iteration, or until the run ends.

        A step is expected to take `step_s` real seconds, and waited for however long it takes.
        """
        whole = int(moment)
        while self.newest < whole and self.process.poll() is None:
            self.look()
            time.sleep(TICK_S)
        before, last = self.ended.get(whole - 1), self.ended.get(whole)
        measured_s = last - before if before is not None and last is not None else 0.0
        time.sleep((moment - whole) * max(step_s, measured_s))

    def has_begun(self, nodes: int) -> bool:
        """Whether all nodes have met, so that the others survive one."""
        logs = [log_file(self.folder, node) for node in range(nodes)]
        return all(log.exists() and " ready in " in log.read_text(errors="replace") for log in logs)

    def living(self, node: int) -> int | None:
        """A file descriptor of a node's process (pidfd), for the caller to close; None if it has none that lives."""
        pid = process_ids(self.folder).get(node)
        if pid is None:
            return None
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        # Its number may be another process's by now; once the descriptor is open it stays the same one.
        if parent_and_state(pid) == (self.process.pid, True):
            return handle
        os.close(handle)
        return None

    def signal(self, node: int, number: signal.Signals) -> bool:
        """Send a signal to a node's process; whether there was one."""
        handle = self.living(node)
        if handle is None:
            return False
        try:
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True

    def kill(self) -> None:
        """End the launcher at once; the kernel ends its nodes with it."""
        self.process.kill()
        self.process.wait()
        deadline = time.monotonic() + END_SECONDS
        while self.left_behind():
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes {self.left_behind()} have outlived their launcher")
            time.sleep(0.05)

    def left_behind(self) -> list[int]:
        """Processes of the run's session that live, the launcher not counted in."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.process.pid:
                fields = stat_fields(int(entry.name))
                if fields and fields[3] == str(self.process.pid) and fields[0] not in "ZX":
                    found.append(int(entry.name))
        return found

    def last_words(self, lines: int = 3) -> str:
        """The end of what the launcher has printed, in one line; the bar that it draws again and again is left out."""
        text = output_of(self.folder).read_text(errors="replace").replace("\r", "\n")
        said = [line.strip() for line in text.splitlines() if line.strip() and "step/s" not in line]
        return " / ".join(said[-lines:])


def end_with_parent() -> None:
    """Let the kernel end this process when the one that has started it ends, however that may be."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def output_of(folder: Path) -> Path:
    """Where what a run prints goes."""
    return folder.with_name(f"{folder.name}.out")


def stat_fields(pid: int) -> list[str]:
    """/proc/<pid>/stat from the state on: state, parent, process group, session, ..; empty if there is no process."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def parent_and_state(pid: int) -> tuple[int, bool]:
    """The parent of a process, and whether it lives."""
    fields = stat_fields(pid)
    return (int(fields[1]), fields[0] not in "ZX") if fields else (0, False)
