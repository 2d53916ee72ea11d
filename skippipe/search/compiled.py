"""The decorator of every compiled loop of the search: machine code, made at the first call and kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """The function compiled by numba; touch its file after a change to a compiled function of another file."""
    return cast(Function, numba.njit(cache=True)(function))
