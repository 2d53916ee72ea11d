"""The first three messages of a connection, apart from any socket: both ends prove the secret and agree on keys.

    OPENING    who connects to whom, its session, its run, its clock, a fresh X25519 key (RFC 7748)    and a tag
    ANSWER     its session, its run's id, its clock, its time, a fresh X25519 key                       and a tag
    PROOF      the offset of the clocks, as the client measured it                                      and a tag

Every tag is a keyed BLAKE2b over all that was said so far, and the keys of both directions come from all of it, so that
no bit can be changed and no message used again. A stranger is told apart by the tag of its first message, before
anything else is computed for it. Keys that lived for one connection keep what was overheard secret, even if the
cluster's secret leaks later.
"""

from __future__ import annotations

import hmac
import math
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from skippipe.transport.clocks import IDENTITY_BYTES
from skippipe.transport.identity import KEY_BYTES, OPEN, AuthenticationError, WrongSecretError, keyed
from skippipe.transport.records import Opener, Sealer, Session
from skippipe.transport.run_identity import RUN_ID_BYTES, UNKNOWN, RunIdentity

MAGIC = b"SKIPPIPE"
SESSION_BYTES = 16
OPENING = struct.Struct(f"<8s32s32s{SESSION_BYTES}s32s{RUN_ID_BYTES}s{IDENTITY_BYTES}s32s")
ANSWER = struct.Struct(f"<{SESSION_BYTES}s{RUN_ID_BYTES}s{IDENTITY_BYTES}sd32s")
PROOF = struct.Struct("<dd")
"""Seconds that the server's wire clock is ahead of the client's, and how far that may be off."""
OPENING_BYTES, ANSWER_BYTES, PROOF_BYTES = (part.size + KEY_BYTES for part in (OPENING, ANSWER, PROOF))


@dataclass(frozen=True)
class Introduction:
    """What an end says of itself."""

    identity: bytes
    """Its node id."""
    session: bytes
    """Drawn when its process started: frames are numbered within it."""
    run: RunIdentity
    clock: bytes
    """Which clock it reads."""


class Transcript:
    """All that both ends have said, and the secret that they say it under."""

    def __init__(self, secret: bytes | None) -> None:
        self.encrypts = secret is not None
        self.secret = secret or OPEN
        self.said = b""

    def speak(self, purpose: bytes, message: bytes) -> bytes:
        """A message of ours with its tag."""
        self.said += message
        tag = keyed(self.secret, purpose, self.said)
        self.said += tag
        return message + tag

    def hear(self, purpose: bytes, data: bytes) -> bytes:
        """The other end's message; WrongSecretError if its tag is wrong."""
        message, tag = data[:-KEY_BYTES], data[-KEY_BYTES:]
        if not hmac.compare_digest(keyed(self.secret, purpose, self.said + message), tag):
            raise WrongSecretError("it does not hold the cluster's secret")
        self.said += data
        return message

    def session(self, ours: X25519PrivateKey, theirs: bytes, connects: bool) -> Session:
        """Keys of both directions, as the end that connected or accepted sees them."""
        if not self.encrypts:
            return Session(Sealer(None), Opener(None))
        try:
            shared = ours.exchange(X25519PublicKey.from_public_bytes(theirs))
        except ValueError as error:
            raise AuthenticationError(f"its key is no key ({error})") from None
        forth, back = (keyed(self.secret, purpose, self.said, shared) for purpose in (b"forth", b"back"))
        return Session(Sealer(forth), Opener(back)) if connects else Session(Sealer(back), Opener(forth))


def public_bytes(private: X25519PrivateKey) -> bytes:
    """The public key, 32 bytes."""
    return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


class ClientHandshake:
    """The end that connects: `opening`, then `answered`, then `prove`."""

    def __init__(self, me: Introduction, server: bytes, secret: bytes | None) -> None:
        """`server` is the node id of the other end."""
        self.me = me
        self.server = server
        self.transcript = Transcript(secret)
        self.private = X25519PrivateKey.generate()
        self.same_clock = False
        self.server_session = b""

    def opening(self) -> bytes:
        """The first message, OPENING_BYTES long."""
        me, run = self.me, self.me.run
        key = public_bytes(self.private)
        message = OPENING.pack(MAGIC, me.identity, self.server, me.session, run.digest, run.run_id, me.clock, key)
        return self.transcript.speak(b"opening", message)

    def answered(self, data: bytes) -> float:
        """Take the server's ANSWER_BYTES; its wire time. AuthenticationError for a stranger or another run."""
        answer = ANSWER.unpack(self.transcript.hear(b"answer", data))
        self.server_session, run_id, clock, time, self.theirs = answer
        check_run_id(self.me.run, run_id)
        self.me.run.learn(run_id)
        self.same_clock = clock == self.me.clock
        return float(time)

    def prove(self, offset: float, error: float) -> tuple[bytes, Session]:
        """The last message, PROOF_BYTES long, and the session that begins with it."""
        proof = self.transcript.speak(b"proof", PROOF.pack(offset, error))
        return proof, self.transcript.session(self.private, self.theirs, connects=True)


class ServerHandshake:
    """The end that accepts: `answer`, then `proved`."""

    def __init__(self, me: Introduction, secret: bytes | None) -> None:
        self.me = me
        self.transcript = Transcript(secret)
        self.private: X25519PrivateKey
        """Made once the first message has verified: strangers cost one tag each."""
        self.client = self.client_session = b""
        """Node id and session of the other end; proved only once `proved` has returned."""
        self.offset = 0.0
        """Seconds that our wire clock is ahead of the client's."""

    def answer(self, data: bytes, time: float) -> bytes:
        """What to answer to OPENING_BYTES, given our wire time; AuthenticationError for a stranger or another run."""
        if not data.startswith(MAGIC):
            raise AuthenticationError("it does not speak our protocol")
        fields = OPENING.unpack(self.transcript.hear(b"opening", data))
        _, self.client, server, self.client_session, digest, self.run_id, _, self.theirs = fields
        if server != self.me.identity:
            raise AuthenticationError("it looks for another node")
        if digest != self.me.run.digest:
            raise AuthenticationError("it belongs to a run of another schedule or configuration")
        check_run_id(self.me.run, self.run_id)
        self.private = X25519PrivateKey.generate()
        me, key = self.me, public_bytes(self.private)
        message = ANSWER.pack(me.session, me.run.run_id, me.clock, time, key)
        return self.transcript.speak(b"answer", message)

    def proved(self, data: bytes) -> Session:
        """Take the client's PROOF_BYTES: it is who it says, here and now."""
        self.offset, _ = PROOF.unpack(self.transcript.hear(b"proof", data))
        if not math.isfinite(self.offset):
            raise AuthenticationError("its clock's offset is no number")
        self.me.run.learn(self.run_id)
        return self.transcript.session(self.private, self.theirs, connects=False)


def check_run_id(run: RunIdentity, run_id: bytes) -> None:
    """AuthenticationError if both know which run they belong to, and it is not the same."""
    if UNKNOWN not in (run.run_id, run_id) and run.run_id != run_id:
        raise AuthenticationError("it belongs to another run of the same configuration")
