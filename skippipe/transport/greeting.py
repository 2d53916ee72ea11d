"""Datagrams that belong to one run, apart from any socket: who greets is answered, and then both have a key.

    GREETING   a session, the run's id and its table                         under the secret
    WELCOME    the same, and the session that it answers                     under the secret
    CONTENT    a session and a datagram of discovery                         under the run's digest and both sessions

Each begins with the address at which its sender is reached, and answers go there, not to where the datagram came from:
a router on the way may have changed that, and so may somebody who sends on what he overheard.

Sessions are drawn when a process starts, so a datagram of an earlier run verifies nowhere in a later one, nor one of a
run of another configuration. A welcome that repeats our session is fresh: what it says of its run can be believed.
"""

from __future__ import annotations

import hmac
import os
import struct
from collections import deque
from dataclasses import dataclass, field

from skippipe.transport.addresses import ADDRESS_BYTES, Address, pack_address, unpack_address
from skippipe.transport.identity import OPEN, TAG_BYTES, keyed
from skippipe.transport.run_identity import RUN_ID_BYTES, RunIdentity

GREETING, WELCOME, CONTENT = b"\x01", b"\x02", b"\x03"
SESSION_BYTES = 16
RUN = struct.Struct(f"<{SESSION_BYTES}s{SESSION_BYTES}s{RUN_ID_BYTES}s")
"""The sender's session, the one that it answers (zeros in a greeting), the run's id; the run's table follows."""
HEAD_BYTES = 1 + ADDRESS_BYTES
"""Kind and address of the sender."""
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

    sender: Address
    """Where its sender is reached, as it says."""
    content: bytes | None = None
    """For discovery."""
    answers: list[bytes] = field(default_factory=list)
    """To its sender."""
    stranger: bool = False
    """Whether its tag does not verify."""
    differences: list[str] | None = None
    """In what the run of somebody who holds the secret, there and now, differs from ours."""
    table: bytes | None = None
    """Of the run of whoever greets or welcomes us."""
    is_welcome: bool = False
    """Whether it answers a greeting of ours, so that the way goes there and back."""


STRANGER = Received(("", 0), stranger=True)


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

    def receive(self, data: bytes, now: float) -> Received:
        """Take a datagram; whatever it is, nothing is raised."""
        kind, message, tag = data[:1], data[HEAD_BYTES:-TAG_BYTES], data[-TAG_BYTES:]
        sized = HEAD_BYTES + TAG_BYTES <= len(data) <= MOST_DATAGRAM_BYTES
        if not sized or kind not in (GREETING, WELCOME, CONTENT):
            return STRANGER
        address = unpack_address(data[1:HEAD_BYTES])
        if kind == CONTENT:
            return self.take_content(message, tag, address, now)
        expected = keyed(self.secret, b"greeting", data[:HEAD_BYTES], message)[:TAG_BYTES]
        if not hmac.compare_digest(expected, tag) or len(message) < RUN.size:
            return STRANGER
        session, answered, run_id = RUN.unpack_from(message)
        if kind == GREETING:
            return self.take_greeting(session, message[RUN.size :], address, now)
        if answered != self.session:
            # A welcome of an earlier run: whoever sent it once is not the one who sends it now.
            return STRANGER
        return self.take_welcome(session, run_id, message[RUN.size :], address, now)

    def take_greeting(self, session: bytes, table: bytes, address: Address, now: float) -> Received:
        """Answer; if the run is another one, ask back, so that both learn of it from somebody who is there."""
        answers = [self.introduction(WELCOME, session)]
        if table != self.run.table:
            peer = self.acquaintance(address)
            if now - peer.greeted_at >= GREET_AGAIN_SECONDS:
                peer.greeted_at = now
                answers.append(self.introduction(GREETING, bytes(SESSION_BYTES)))
        return Received(address, answers=answers, table=table)

    def take_welcome(self, session: bytes, run_id: bytes, table: bytes, address: Address, now: float) -> Received:
        """Send what waited, if the run is ours."""
        try:
            differences = self.run.differences(table, run_id)
        except ValueError:
            return STRANGER
        peer = self.acquaintance(address)
        if differences:
            # Before we end: who answered us may not have been answered itself, and would wait for us.
            answers = [] if peer.told == session else [self.introduction(WELCOME, session)]
            peer.told = session
            return Received(address, answers=answers, differences=differences, table=table, is_welcome=True)
        self.run.learn(run_id)
        peer.session, peer.heard_at = session, now
        answers = [self.sealed(content, session) for content in peer.waiting]
        peer.waiting.clear()
        return Received(address, answers=answers, table=table, is_welcome=True)

    def take_content(self, message: bytes, tag: bytes, address: Address, now: float) -> Received:
        """Open a datagram of discovery; it also shows which process is at the address."""
        session, content = message[:SESSION_BYTES], message[SESSION_BYTES:]
        if not hmac.compare_digest(self.content_tag(address, session, self.session, content), tag):
            return STRANGER
        peer = self.acquaintance(address)
        answers = [self.sealed(waiting, session) for waiting in peer.waiting]
        peer.waiting.clear()
        peer.session, peer.heard_at = session, now
        return Received(address, content, answers)

    def acquaintance(self, address: Address) -> Acquaintance:
        """What is known of an address; if there are too many, the one that has been silent longest is forgotten."""
        if address not in self.peers:
            if len(self.peers) >= MOST_PEERS:
                del self.peers[min(self.peers, key=lambda other: self.peers[other].heard_at)]
            self.peers[address] = Acquaintance()
        return self.peers[address]

    def introduction(self, kind: bytes, answered: bytes) -> bytes:
        """A greeting, or a welcome that answers a session."""
        head = kind + pack_address(self.me)
        message = RUN.pack(self.session, answered, self.run.run_id) + self.run.table
        return head + message + keyed(self.secret, b"greeting", head, message)[:TAG_BYTES]

    def sealed(self, content: bytes, session: bytes) -> bytes:
        """A datagram of discovery for the process that has this session."""
        head = CONTENT + pack_address(self.me)
        return head + self.session + content + self.content_tag(self.me, self.session, session, content)

    def content_tag(self, sender: Address, from_session: bytes, to_session: bytes, content: bytes) -> bytes:
        """Tag of a datagram of discovery, bound to both processes and the sender's address."""
        parts = (self.run.digest, from_session, to_session, pack_address(sender), content)
        return keyed(self.secret, b"datagram", *parts)[:TAG_BYTES]
