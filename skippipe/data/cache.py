"""Files that many processes need and one makes."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from skippipe.errors import UserError

FORMAT = 1
"""Part of the cache's keys: raise it when what is cached changes."""


def key(*parts: object) -> str:
    """Hash that tells cached files apart."""
    return hashlib.sha256(repr((FORMAT, *parts)).encode()).hexdigest()[:16]


@contextmanager
def written_once(path: Path) -> Iterator[BinaryIO | None]:
    """Give a file to write, which becomes `path` when the block ends well, or None if `path` is there already.

    Of many processes one writes and the others wait for it; a writer that dies leaves nothing half done.
    """
    if path.exists():
        yield None
        return
    temporary = path.with_suffix(".tmp")
    try:
        lock_file = path.with_suffix(".lock").open("w")
    except OSError as error:
        raise UserError(f"data.cache: {path.parent}: can't be written ({error.strerror})") from None
    with lock_file as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            yield None
            return
        try:
            with temporary.open("wb") as file:
                yield file
            os.replace(temporary, path)
        except OSError as error:
            raise UserError(f"data.cache: {path.parent}: can't be written ({error.strerror})") from None
        finally:
            temporary.unlink(missing_ok=True)
