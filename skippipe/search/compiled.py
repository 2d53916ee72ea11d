"""Machine code of the search's loops: the decorator, the compiled simulation, and forgetting code of older sources."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

from skippipe.schedule import simulate

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """The function compiled by numba at its first call, kept on disk; it runs without Python's lock."""
    return cast(Function, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


first_come_first_served = compiled(simulate.first_come_first_served)
follow_order = compiled(simulate.follow_order)
task_number = compiled(simulate.task_number)
split_task = compiled(simulate.split_task)


def forget_stale_kernels(package: Path) -> None:
    """Remove machine code that was compiled from other sources than the package's present ones.

    Numba looks at the age of a function's own file only, not at those of the compiled functions that it calls, so that
    an update of one file would leave the others' old code in use.
    """
    sources = b"".join(path.read_bytes() for path in sorted(package.rglob("*.py")))
    digest = hashlib.sha256(sources).hexdigest()
    stamp = package / "search" / "__pycache__" / "kernels.sha256"
    if not os.access(package, os.W_OK) or (stamp.exists() and stamp.read_text() == digest):
        return
    for path in [*package.rglob("__pycache__/*.nbi"), *package.rglob("__pycache__/*.nbc")]:
        path.unlink(missing_ok=True)
    stamp.parent.mkdir(exist_ok=True)
    stamp.write_text(digest)
