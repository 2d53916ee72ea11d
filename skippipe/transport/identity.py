"""Who may talk: node ids, the cluster's secret, and keys and tags that are made from it for one purpose each."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from deccom.cryptofuncs.hash import SHA256

from skippipe.errors import UserError, shown

TAG_BYTES = 16
KEY_BYTES = 32
SECRET_VARIABLE = "SKIPPIPE_SECRET"
SHORTEST_SECRET = 16
OPEN = b"peers.authenticate is false".ljust(KEY_BYTES)
"""What stands for the secret where there is none: anybody may know it."""
SCRYPT_COST, SCRYPT_BLOCK = 1 << 15, 8
"""RFC 7914: 32 MB and a tenth of a second a guess, which is what makes passphrases costly to guess."""


class AuthenticationError(Exception):
    """A peer that did not prove that it holds the cluster's secret, or bytes whose tag does not verify."""


class WrongSecretError(AuthenticationError):
    """A message whose tag was not made with the cluster's secret."""


def public_name(node: int) -> str:
    """DecCom public key text of a node, from which its id follows."""
    return f"skippipe-node-{node}"


def node_id(node: int) -> bytes:
    """DecCom id of a node, 32 bytes."""
    return bytes(SHA256(public_name(node)))


def cluster_secret(secret_file: str | None, alone: bool) -> bytes:
    """The cluster's secret: from a file, from SKIPPIPE_SECRET, or for a run that no other machine reaches a fresh one.

    Raises UserError if none is given for an address that other machines can reach, and for a file that others can read.
    """
    secret = given_secret(secret_file)
    if secret is not None:
        return derived(secret)
    if alone:
        return secrets.token_bytes(KEY_BYTES)
    raise UserError("peers.host: other machines can reach it; give every machine the same peers.secret_file")


def given_secret(secret_file: str | None) -> bytes | None:
    """The secret as the user gives it, in a file or in SKIPPIPE_SECRET, if so; UserError as read_secret."""
    if secret_file is not None:
        return read_secret(secret_file)
    # As bytes: they need not be text.
    return os.environb.get(SECRET_VARIABLE.encode())


def derived(secret: bytes) -> bytes:
    """The key that a secret stands for, KEY_BYTES long; UserError if it is too short to be one."""
    if len(secret) < SHORTEST_SECRET:
        raise UserError(f"the cluster secret must have at least {SHORTEST_SECRET} bytes, not {len(secret)}")
    memory = 2 * 128 * SCRYPT_COST * SCRYPT_BLOCK
    return hashlib.scrypt(
        secret, salt=b"skippipe cluster", n=SCRYPT_COST, r=SCRYPT_BLOCK, p=1, maxmem=memory, dklen=KEY_BYTES
    )


def is_given(secret_file: str | None) -> bool:
    """Whether the user says what the cluster's secret is; if not, only this process and its children know it."""
    return secret_file is not None or SECRET_VARIABLE in os.environ


def read_secret(secret_file: str) -> bytes:
    """Contents of the secret's file; UserError if it can't be read, or if others than its owner can."""
    try:
        path = Path(secret_file).expanduser()
        mode = path.stat().st_mode
        secret = b"" if mode & 0o077 else path.read_bytes().strip()
    except OSError as error:
        raise UserError(f"peers.secret_file: {secret_file} can't be read ({error.strerror})") from None
    except (RuntimeError, ValueError) as error:
        # A home that nobody has, or a character that no path can have.
        raise UserError(f"peers.secret_file: {shown(secret_file)} is no path ({error})") from None
    if mode & 0o077:
        raise UserError(
            f"peers.secret_file: others can read or write {path} (mode {mode & 0o777:03o}); chmod 600 {path}"
        )
    return secret


def keyed(secret: bytes, purpose: bytes, *parts: bytes) -> bytes:
    """Keyed BLAKE2b of the parts, 32 bytes, for one purpose only; each part's length counts, not just its bytes."""
    digest = hashlib.blake2b(key=secret, digest_size=KEY_BYTES, person=purpose.ljust(16))
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()
