"""Which launchers have which nodes of a run's folder: no two have the same, and while one has any the run goes on."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from skippipe.errors import UserError

LOCKS = "launchers.lock"


class Claims:
    """Keeps other launchers from running the same nodes in this folder while this process lives.

    Each node is a byte of a file that is locked, which holds on shared disks too (fcntl locks end with the process).
    """

    def __init__(self, folder: Path) -> None:
        """UserError if nothing can be locked there."""
        self.folder = folder
        try:
            self.file = os.open(folder / LOCKS, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"runs: {folder / LOCKS} can't be written ({error.strerror})") from None

    def take(self, nodes: range) -> None:
        """Have these nodes from now on; UserError if another launcher has one."""
        for node in nodes:
            try:
                fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, node)
            except BlockingIOError:
                raise UserError(
                    f"name: another launcher runs node {node} in {self.folder}; choose another name"
                ) from None
            except OSError as error:
                # A network disk without locks, for instance.
                raise UserError(f"runs: {self.folder} lets no file be locked ({error.strerror})") from None

    def give_back(self, node: int) -> None:
        """Let another launcher have a node."""
        fcntl.lockf(self.file, fcntl.LOCK_UN, 1, node)


def goes_on(folder: Path, nodes: int) -> bool:
    """Whether a launcher has any of so many nodes of a folder. Not for one where this process has some itself."""
    try:
        # Closing the file gives back what was locked here.
        with (folder / LOCKS).open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, nodes)
    except BlockingIOError:
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    return False
