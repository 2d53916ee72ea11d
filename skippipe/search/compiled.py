"""The decorator of every compiled loop of the search: machine code, made at the first call and kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """The function compiled by numba; warm_up.py forgets machine code of older sources."""
    return cast(Function, numba.njit(cache=True)(function))
