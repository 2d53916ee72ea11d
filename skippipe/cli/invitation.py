"""An invitation as it is printed and given: where a node of the run is, and the secret, which is kept from others."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self
from urllib.parse import quote_from_bytes, unquote_to_bytes

from skippipe.errors import UserError
from skippipe.peers import split_address
from skippipe.transport.addresses import Address, shown_address
from skippipe.transport.identity import SHORTEST_SECRET, derived

SCHEME = "skippipe://"
EXAMPLE = f"{SCHEME}10.0.0.1:4000/#SECRET"
ARGUMENTS_BEGIN, ARGUMENTS_END = 48 - 3, 49 - 3
"""Fields of /proc/PID/stat (man 5 proc), counted from the first one behind the command's name."""


@dataclass(frozen=True)
class Invitation:
    """Into one run."""

    address: Address
    """Of one of its nodes; a name may stand for the host."""
    secret: bytes = field(repr=False)
    """The cluster's, as a file would hold it."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """What `shown` gives; UserError says what is wrong, but not the secret."""
        rest, mark, secret = text.partition("#")
        if not rest.startswith(SCHEME) or not mark:
            raise malformed(f"begins with {SCHEME} and has a # before its secret")
        address = split_address(rest.removeprefix(SCHEME).removesuffix("/"), "--join: an invitation")
        invitation = cls(address, unquote_to_bytes(secret))
        if len(invitation.secret) < SHORTEST_SECRET:
            raise malformed(f"has a secret of at least {SHORTEST_SECRET} bytes, not {len(invitation.secret)}")
        return invitation

    @property
    def shown(self) -> str:
        """As it is given to --join."""
        return f"{SCHEME}{self.where}/#{quote_from_bytes(self.secret, safe='')}"

    @property
    def where(self) -> str:
        """The node's address, for messages."""
        return shown_address(self.address)

    @cached_property
    def key(self) -> bytes:
        """What the secret stands for; UserError if it is too short."""
        return derived(self.secret)


def malformed(what: str) -> UserError:
    """The error that says what an invitation has and this one has not."""
    return UserError(f"--join: an invitation {what}, as in {EXAMPLE}; --host prints a whole one")


def hide_argument(text: str) -> None:
    """Overwrite a text among this process's arguments, which every user of the machine can read (ps)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = int(fields[ARGUMENTS_BEGIN]), int(fields[ARGUMENTS_END])
    place = ctypes.string_at(begin, end - begin).find(text.encode())
    if place >= 0:
        ctypes.memset(begin + place, ord("*"), len(text.encode()))
