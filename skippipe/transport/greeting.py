"""Datagrams that belong to one run, apart from any socket: who greets is answered, and then both have a key.

    GREETING   a session, the run's id and its table                         under the secret
    WELCOME    the same, and the session that it answers                     under the secret
    CONTENT    a session and a datagram of discovery                         under the run's digest and both sessions

Sessions are drawn when a process starts, so a datagram of an earlier run verifies nowhere in a later one, nor one of a
run of another configuration. A welcome that repeats our session is fresh: what it says of its run can be believed.
"""

from __future__ import annotations

import hmac
import os
import struct
from collections import deque
from dataclasses import dataclass, field

from skippipe.transport.identity import OPEN, TAG_BYTES, keyed
from skippipe.transport.run_identity import RUN_ID_BYTES, RunIdentity

Address = tuple[str, int]

GREETING, WELCOME, CONTENT = b"\x01", b"\x02", b"\x03"
SESSION_BYTES = 16
RUN = struct.Struct(f"<{SESSION_BYTES}s{SESSION_BYTES}s{RUN_ID_BYTES}s")
"""The sender's session, the one that it answers (zeros in a greeting), the run's id; the run's table follows."""
MOST_DATAGRAM_BYTES = 2048
MOST_WAITING = 16
"""Datagrams kept for an address that has not welcomed us yet; the oldest go."""
MOST_PEERS = 1024
GREET_AGAIN_SECONDS = 0.2
DOUBT_SECONDS = 2.0
"""After so long without a word of theirs we greet again: their process may be another one."""


@dataclass
class Acquaintance:
    """What is known of an address."""

    session: bytes = b""
    """Of the process there, as it has proved."""
    waiting: deque[bytes] = field(default_factory=lambda: deque(maxlen=MOST_WAITING))
    greeted_at: float = -GREET_AGAIN_SECONDS
    heard_at: float = 0.0
    told: bytes = b""
    """The session that was told in what our run differs from its own."""


@dataclass
class Received:
    """What follows from a datagram."""

    content: bytes | None = None
    """For discovery."""
    answers: list[bytes] = field(default_factory=list)
    """To the address that it came from."""
    stranger: bool = False
    """Whether its tag does not verify."""
    differences: list[str] | None = None
    """In what the run of somebody who holds the secret, there and now, differs from ours."""


class Greetings:
    """Seals and opens the datagrams of one process; times are seconds of any one clock."""

    def __init__(self, me: Address, secret: bytes | None, run: RunIdentity) -> None:
        self.me = me
        self.secret = secret or OPEN
        self.run = run
        self.session = os.urandom(SESSION_BYTES)
        self.peers: dict[Address, Acquaintance] = {}

    def send(self, content: bytes, address: Address, now: float) -> list[bytes]:
        """Datagrams to send now, so that a content gets there, at once or when its receiver has welcomed us."""
        peer = self.acquaintance(address)
        out = []
        if peer.session:
            out.append(self.sealed(content, peer.session))
            if now - peer.heard_at < DOUBT_SECONDS:
                return out
        else:
            peer.waiting.append(content)
        if now - peer.greeted_at >= GREET_AGAIN_SECONDS:
            peer.greeted_at = now
            out.append(self.introduction(GREETING, bytes(SESSION_BYTES)))
        return out

    def receive(self, data: bytes, address: Address, now: float) -> Received:
        """Take a datagram; whatever it is, nothing is raised."""
        kind, message, tag = data[:1], data[1:-TAG_BYTES], data[-TAG_BYTES:]
        if len(data) > MOST_DATAGRAM_BYTES or kind not in (GREETING, WELCOME, CONTENT):
            return Received(stranger=True)
        if kind == CONTENT:
            return self.take_content(message, tag, address, now)
        expected = keyed(self.secret, b"greeting", kind, text(address), message)[:TAG_BYTES]
        if not hmac.compare_digest(expected, tag) or len(message) < RUN.size:
            return Received(stranger=True)
        session, answered, run_id = RUN.unpack_from(message)
        if kind == GREETING:
            return self.take_greeting(session, message[RUN.size :], address, now)
        if answered != self.session:
            # A welcome of an earlier run: whoever sent it once is not the one who sends it now.
            return Received(stranger=True)
        return self.take_welcome(session, run_id, message[RUN.size :], address, now)

    def take_greeting(self, session: bytes, table: bytes, address: Address, now: float) -> Received:
        """Answer; if the run is another one, ask back, so that both learn of it from somebody who is there."""
        answers = [self.introduction(WELCOME, session)]
        if table != self.run.table:
            peer = self.acquaintance(address)
            if now - peer.greeted_at >= GREET_AGAIN_SECONDS:
                peer.greeted_at = now
                answers.append(self.introduction(GREETING, bytes(SESSION_BYTES)))
        return Received(answers=answers)

    def take_welcome(self, session: bytes, run_id: bytes, table: bytes, address: Address, now: float) -> Received:
        """Send what waited, if the run is ours."""
        try:
            differences = self.run.differences(table, run_id)
        except ValueError:
            return Received(stranger=True)
        peer = self.acquaintance(address)
        if differences:
            # Before we end: who answered us may not have been answered itself, and would wait for us.
            answers = [] if peer.told == session else [self.introduction(WELCOME, session)]
            peer.told = session
            return Received(answers=answers, differences=differences)
        self.run.learn(run_id)
        peer.session, peer.heard_at = session, now
        answers = [self.sealed(content, session) for content in peer.waiting]
        peer.waiting.clear()
        return Received(answers=answers)

    def take_content(self, message: bytes, tag: bytes, address: Address, now: float) -> Received:
        """Open a datagram of discovery; it also shows which process is at the address."""
        session, content = message[:SESSION_BYTES], message[SESSION_BYTES:]
        if not hmac.compare_digest(self.content_tag(address, session, self.session, content), tag):
            return Received(stranger=True)
        peer = self.acquaintance(address)
        answers = [self.sealed(waiting, session) for waiting in peer.waiting]
        peer.waiting.clear()
        peer.session, peer.heard_at = session, now
        return Received(content=content, answers=answers)

    def acquaintance(self, address: Address) -> Acquaintance:
        """What is known of an address; if there are too many, the one that has been silent longest is forgotten."""
        if address not in self.peers:
            if len(self.peers) >= MOST_PEERS:
                del self.peers[min(self.peers, key=lambda other: self.peers[other].heard_at)]
            self.peers[address] = Acquaintance()
        return self.peers[address]

    def introduction(self, kind: bytes, answered: bytes) -> bytes:
        """A greeting, or a welcome that answers a session."""
        message = RUN.pack(self.session, answered, self.run.run_id) + self.run.table
        return kind + message + keyed(self.secret, b"greeting", kind, text(self.me), message)[:TAG_BYTES]

    def sealed(self, content: bytes, session: bytes) -> bytes:
        """A datagram of discovery for the process that has this session."""
        return CONTENT + self.session + content + self.content_tag(self.me, self.session, session, content)

    def content_tag(self, sender: Address, from_session: bytes, to_session: bytes, content: bytes) -> bytes:
        """Tag of a datagram of discovery, bound to both processes and the address that it is sent from."""
        parts = (self.run.digest, from_session, to_session, text(sender), content)
        return keyed(self.secret, b"datagram", *parts)[:TAG_BYTES]


def text(address: Address) -> bytes:
    """An address for a tag."""
    return f"{address[0]}:{address[1]}".encode()
