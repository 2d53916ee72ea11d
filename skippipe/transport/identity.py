"""Who may talk: node ids, the cluster secret, proofs of it at connection, and tags on every message and datagram.

Both ends of a connection prove that they hold the secret by a keyed BLAKE2b over both nonces and both node ids, and
derive a session key from them. Every frame ends with an AES-GCM tag (RFC 5116; the frame is associated data, so it is
authenticated and stays readable in place) whose nonce counts the connection's frames: a replayed, reordered or altered
frame does not verify. The tag comes last, so that both ends compute it while the frame travels.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import AEADEncryptionContext, Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM
from deccom.cryptofuncs.hash import SHA256

from skippipe.errors import UserError

NONCE_BYTES = 32
PROOF_BYTES = 32
TAG_BYTES = 16
DATAGRAM_TAG_BYTES = 16
SECRET_VARIABLE = "SKIPPIPE_SECRET"
SHORTEST_SECRET = 16


class AuthenticationError(Exception):
    """A peer that did not prove that it holds the cluster secret, or bytes whose tag does not verify."""


def public_name(node: int) -> str:
    """DecCom public key text of a node, from which its id follows."""
    return f"skippipe-node-{node}"


def node_id(node: int) -> bytes:
    """DecCom id of a node, 32 bytes."""
    return bytes(SHA256(public_name(node)))


def cluster_secret(host: str, secret_file: str | None) -> bytes:
    """The cluster's secret: from a file, from SKIPPIPE_SECRET, or for a run on loopback a fresh random one.

    Raises UserError if none is given for an address that other machines can reach.
    """
    if secret_file is not None:
        try:
            secret = Path(secret_file).expanduser().read_bytes().strip()
        except OSError as error:
            raise UserError(f"peers.secret_file: {secret_file} can't be read ({error.strerror})") from None
    elif SECRET_VARIABLE in os.environ:
        secret = os.environ[SECRET_VARIABLE].encode()
    elif host.startswith("127."):
        return secrets.token_bytes(32)
    else:
        raise UserError(f"peers.host {host} is not loopback: give every machine the same peers.secret_file")
    if len(secret) < SHORTEST_SECRET:
        raise UserError(f"the cluster secret must have at least {SHORTEST_SECRET} bytes, not {len(secret)}")
    return hashlib.blake2b(secret, person=b"skippipe secret").digest()[:32]


def keyed(secret: bytes, purpose: bytes, *parts: bytes) -> bytes:
    """Keyed BLAKE2b of the parts, 32 bytes, for one purpose only."""
    return hashlib.blake2b(b"".join(parts), key=secret, digest_size=PROOF_BYTES, person=purpose.ljust(16)).digest()


@dataclass(frozen=True)
class Handshake:
    """Both ends' view of one connection attempt."""

    client: bytes
    """Node id of the end that connects."""
    server: bytes
    """Node id of the end that accepts."""
    client_nonce: bytes
    server_nonce: bytes

    def proof(self, secret: bytes, role: bytes) -> bytes:
        """What `role` (b"client" or b"server") sends to show that it holds the secret."""
        return keyed(secret, role, self.client, self.server, self.client_nonce, self.server_nonce)

    def check(self, secret: bytes, role: bytes, proof: bytes) -> None:
        """Raise AuthenticationError if the other end's proof is wrong."""
        if not hmac.compare_digest(self.proof(secret, role), proof):
            raise AuthenticationError("it does not hold the cluster secret")

    def session(self, secret: bytes | None) -> Session:
        """Tags of what goes over this connection; None: authentication is off."""
        if secret is None:
            return Session(None)
        return Session(keyed(secret, b"session", self.client, self.server, self.client_nonce, self.server_nonce))


class Session:
    """Tags of one connection's frames; with authentication off (no key) the tags are zeros and not looked at."""

    def __init__(self, key: bytes | None) -> None:
        self.key = key
        self.cipher = AESGCM(key) if key is not None else None
        self.frames = 0

    def tag(self, frame: memoryview | bytes) -> bytes:
        """Tag of a whole frame, the next one; RunningTag computes the same from parts."""
        if self.cipher is None:
            return bytes(TAG_BYTES)
        return self.cipher.encrypt(self.next_nonce(), b"", frame)

    def running_tag(self) -> RunningTag:
        """Tag of the next frame, part by part."""
        return RunningTag(self.key, self.next_nonce())

    def next_nonce(self) -> bytes:
        """AES-GCM nonce that no other frame of this connection has, 12 bytes."""
        self.frames += 1
        return self.frames.to_bytes(12, "big")

    def acknowledgement_tag(self, sequence: bytes) -> bytes:
        """Tag of an acknowledgement, TAG_BYTES long."""
        return keyed(self.key, b"acknowledge", sequence)[:TAG_BYTES] if self.key is not None else bytes(TAG_BYTES)


class RunningTag:
    """The tag of a frame that comes in parts; each is read while it is still in the processor's cache."""

    def __init__(self, key: bytes | None, nonce: bytes) -> None:
        self.context: AEADEncryptionContext | None = None
        if key is not None:
            self.context = Cipher(AES(key), GCM(nonce)).encryptor()

    def update(self, part: memoryview | bytes) -> None:
        """The next part."""
        if self.context is not None:
            self.context.authenticate_additional_data(part)

    def finish(self) -> bytes:
        """The tag, TAG_BYTES long."""
        if self.context is None:
            return bytes(TAG_BYTES)
        self.context.finalize()
        return self.context.tag


def check_tag(expected: bytes, tag: bytes) -> None:
    """Raise AuthenticationError if a frame came with another tag than expected."""
    if not hmac.compare_digest(expected, tag):
        raise AuthenticationError("a frame's tag does not verify")


def datagram_tag(secret: bytes, sender: tuple[str, int], data: bytes) -> bytes:
    """Tag of a discovery datagram, bound to the address that it is sent from."""
    return keyed(secret, b"datagram", f"{sender[0]}:{sender[1]}|".encode(), data)[:DATAGRAM_TAG_BYTES]
