"""How a machine that was invited gets what its nodes need from a node of the run, apart from any socket.

After a handshake (handshake.py) in which the node's end is called HOST, and not by its node's id, come records:

    FRAME    FIRST and LAST, the nodes that the newcomer asks for                     from the newcomer
    FRAME    whether the run has begun, and a document; or REFUSED, and why           from the host
    FRAME    names of files that are described in the document, one a line            from the newcomer
    PART ..  the contents of these, one after the other                               from the host

The nodes are kept for the newcomer while its connection lasts, until they are members of the run.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path

from skippipe.errors import numbers_shown
from skippipe.transport.clocks import IDENTITY_BYTES
from skippipe.transport.connected import RefusedError
from skippipe.transport.handshake import OPENING, SESSION_BYTES, ClientHandshake, Introduction, ServerHandshake
from skippipe.transport.identity import node_id
from skippipe.transport.records import MOST_CONTENT_BYTES, PART_BYTES, RecordKind, Session
from skippipe.transport.run_identity import RunIdentity

HOST, NEWCOMER = (name.ljust(32, b".") for name in (b"who invites", b"who is invited"))
"""Who the two ends say that they are; node ids are hashes, so that no node bears these."""
ASKED = struct.Struct("<II")
BEGUN = struct.Struct("<?")
MOST_DOCUMENT_BYTES = MOST_CONTENT_BYTES - BEGUN.size
MOST_REASON_BYTES = 300
MOST_WISH_BYTES = 1000


class UnintelligibleError(Exception):
    """The other end holds the secret, but says what makes no sense here."""


class Desk:
    """What newcomers are told, and which nodes are theirs to start."""

    def __init__(self, document: bytes, files: Mapping[str, Path], nodes: int, own: Iterable[int]) -> None:
        """`own` are nodes of this machine; `document`, of at most MOST_DOCUMENT_BYTES, describes the `files`."""
        assert len(document) <= MOST_DOCUMENT_BYTES
        self.document = document
        self.files = files
        self.nodes = nodes
        self.own = frozenset(own)
        self.claims: list[set[int]] = []
        """Nodes that are kept for a newcomer each, until they have been seen as members."""
        self.has_begun = False
        """Whether the run has."""
        self.members: frozenset[int] | None = None
        """Who trains; None before the run has begun, and for a node that is about to join it."""

    def see(self, members: Iterable[int]) -> None:
        """The run goes on with these nodes."""
        self.has_begun, self.members = True, frozenset(members)
        for claim in self.claims:
            claim.difference_update(self.members)

    def claim(self, first: int, last: int, present: Container[bytes]) -> set[int]:
        """Keep nodes for a newcomer; RefusedError if they can't be had. `present` has ids of those that came."""
        if not 0 <= first < last <= self.nodes:
            raise RefusedError(f"the run has nodes 0 to {self.nodes - 1}, so FIRST {first} and LAST {last} can't be")
        asked = set(range(first, last))
        if self.members is None and self.has_begun:
            raise RefusedError("this node is about to join the run itself; ask again, or at another node")
        if self.members is None:
            taken = self.own | {node for node in range(self.nodes) if node_id(node) in present}
        else:
            taken = self.members
        taken = taken.union(*self.claims)
        if asked & taken:
            free = numbers_shown(set(range(self.nodes)) - taken) or "none"
            raise RefusedError(f"nodes {numbers_shown(asked & taken)} are taken; free ones: {free}")
        self.claims.append(asked)
        return asked

    def give_back(self, claim: set[int]) -> None:
        """A newcomer has gone: whatever of its nodes have not come may be others'."""
        self.claims = [other for other in self.claims if other is not claim]


def introduction(identity: bytes) -> Introduction:
    """What an end says of itself: neither a run, which the newcomer does not know yet, nor a clock is compared."""
    return Introduction(identity, os.urandom(SESSION_BYTES), RunIdentity(), bytes(IDENTITY_BYTES))


def is_newcomer(opening: bytes) -> bool:
    """Whether the first OPENING_BYTES of a connection are of somebody who was invited, as they say."""
    return bool(OPENING.unpack_from(opening)[2] == HOST)


class HostEnd:
    """The end that invites: `answer`, `proved`, `offer`, `deliver`."""

    session: Session

    def __init__(self, desk: Desk, secret: bytes, present: Container[bytes]) -> None:
        self.desk = desk
        self.present = present
        self.handshake = ServerHandshake(introduction(HOST), secret)
        self.claimed: set[int] = set()

    def answer(self, opening: bytes) -> bytes:
        """What to answer to OPENING_BYTES; AuthenticationError for a stranger."""
        return self.handshake.answer(opening, 0.0)

    def proved(self, proof: bytes) -> None:
        """Take PROOF_BYTES; AuthenticationError for a stranger."""
        self.session = self.handshake.proved(proof)

    def offer(self, kind: RecordKind, head: bytes, sealed: memoryview) -> bytes:
        """The record that answers a request, after which the nodes are the newcomer's; RefusedError if they are not."""
        request = opened(self.session, RecordKind.FRAME, kind, head, sealed)
        if len(request) != ASKED.size:
            raise UnintelligibleError(f"a request of {len(request)} bytes")
        first, last = ASKED.unpack(request)
        self.claimed = self.desk.claim(first, last, self.present)
        begun = BEGUN.pack(self.desk.has_begun)
        return self.session.sealer.seal(RecordKind.FRAME, begun + self.desk.document)

    def refusal(self, reason: str) -> bytes:
        """The record that says no."""
        return self.session.sealer.seal(RecordKind.REFUSED, reason.encode()[:MOST_REASON_BYTES])

    def deliver(self, kind: RecordKind, head: bytes, sealed: memoryview) -> Iterator[bytes]:
        """The records of the files that are wished for, read as they are sent; OSError if one is gone."""
        wish = opened(self.session, RecordKind.FRAME, kind, head, sealed)
        names = wish.decode(errors="replace").split("\n") if wish else []
        if len(wish) > MOST_WISH_BYTES or not set(names) <= self.desk.files.keys() or len(set(names)) < len(names):
            raise UnintelligibleError(f"a wish for {len(names)} files, some of which there are not")
        for name in names:
            with self.desk.files[name].open("rb") as file:
                while part := file.read(PART_BYTES):
                    yield self.session.sealer.seal(RecordKind.PART, part)

    def leave(self) -> None:
        """The connection has ended."""
        self.desk.give_back(self.claimed)


class NewcomerEnd:
    """The end that was invited: `opening`, `ask`, `described`, `wish`, and `part` as often as there are some."""

    session: Session

    def __init__(self, secret: bytes) -> None:
        self.handshake = ClientHandshake(introduction(NEWCOMER), HOST, secret)

    def opening(self) -> bytes:
        """The first message."""
        return self.handshake.opening()

    def ask(self, answer: bytes, nodes: range) -> bytes:
        """What follows on ANSWER_BYTES: the proof, and the request for nodes; AuthenticationError for a stranger."""
        self.handshake.answered(answer)
        proof, self.session = self.handshake.prove(0.0, 0.0)
        return proof + self.session.sealer.seal(RecordKind.FRAME, ASKED.pack(nodes.start, nodes.stop))

    def described(self, kind: RecordKind, head: bytes, sealed: memoryview) -> tuple[bool, bytes]:
        """Whether the run has begun, and the document; RefusedError if the nodes can't be had."""
        if kind is RecordKind.REFUSED:
            raise RefusedError(
                opened(self.session, kind, kind, head, sealed)[:MOST_REASON_BYTES].decode("utf-8", "replace")
            )
        content = opened(self.session, RecordKind.FRAME, kind, head, sealed)
        if len(content) < BEGUN.size:
            raise UnintelligibleError("an empty offer")
        return bool(content[0]), content[BEGUN.size :]

    def wish(self, names: Iterable[str]) -> bytes:
        """The record that asks for files."""
        return self.session.sealer.seal(RecordKind.FRAME, "\n".join(names).encode())

    def part(self, kind: RecordKind, head: bytes, sealed: memoryview) -> bytes:
        """More of a file, never nothing."""
        content = opened(self.session, RecordKind.PART, kind, head, sealed)
        if not content:
            raise UnintelligibleError("an empty part of a file")
        return content


def opened(session: Session, wanted: RecordKind, kind: RecordKind, head: bytes, sealed: memoryview) -> bytes:
    """A record's content, once it has verified; AuthenticationError, or UnintelligibleError if another is due."""
    content = session.opener.open(head, sealed)
    if kind is not wanted:
        raise UnintelligibleError(f"a record of kind {kind.name} instead of {wanted.name}")
    return content
