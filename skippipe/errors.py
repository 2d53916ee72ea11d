"""Errors that every room knows: a mistake of the user's, one line and exit code 2, and a training that diverged."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable

SHORT = reprlib.Repr()
SHORT.maxlevel, SHORT.maxlist, SHORT.maxdict, SHORT.maxstring, SHORT.maxother, SHORT.maxlong = 2, 4, 4, 60, 60, 40


class UserError(ValueError):
    """A mistake in a file, a field or an argument; the message names it and the remedy in one line."""


class NothingToResumeError(UserError):
    """All nodes of a run find that there is nothing that they could go on from; the message says what is missing."""


class LeftOutError(RuntimeError):
    """The other nodes have gone on without this one, whose process ends; another may join them."""


class CutOffError(RuntimeError):
    """Too few of the other nodes are in reach to go on with, but they may go on; the message says how many."""


class DivergedError(ArithmeticError):
    """Several iterations in a row gave numbers that are not finite; the message says how many, and why the last one."""


def shown(value: object) -> str:
    """A value from a file as a message shows it: in a moment and on a part of a line, however large or deep it is."""
    try:
        return SHORT.repr(value)
    except ValueError:
        # Python does not write whole numbers of more than 4,300 digits.
        return "a number of thousands of digits"


def numbers_shown(numbers: Iterable[int]) -> str:
    """Whole numbers, such as those of nodes, as a message shows them: "0 to 3, 7"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if run[1:] else str(run[0]) for run in runs)
