"""An invitation's conversation, its two ends in one process: who gets what, and what of it a third may touch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from skippipe.transport.connected import RefusedError
from skippipe.transport.handshake import ANSWER_BYTES, OPENING_BYTES, PROOF_BYTES, Introduction, ServerHandshake
from skippipe.transport.identity import AuthenticationError, node_id
from skippipe.transport.invitation import (
    ASKED,
    MOST_WISH_BYTES,
    Desk,
    HostEnd,
    NewcomerEnd,
    UnintelligibleError,
    is_newcomer,
)
from skippipe.transport.records import HEAD, PART_BYTES, RecordKind, record_shape
from skippipe.transport.run_identity import RunIdentity
from tests.attacks import Attack
from tests.cases import drives
from tests.transport.test_handshake import client

SECRET = b"s" * 32
NOBODY: tuple[bytes, ...] = ()
DOCUMENT = b"what the run is"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Of a machine with nodes 0 to 2 of six, and two files of which one takes several records."""
    contents = {"small": b"few bytes", "large": os.urandom(2 * PART_BYTES + 7)}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    return Desk(DOCUMENT, {name: tmp_path / name for name in contents}, 6, range(3))


def cut(data: bytes) -> tuple[RecordKind, bytes, memoryview]:
    """A record as receivers take it."""
    kind, _ = record_shape(data[: HEAD.size])
    return kind, data[: HEAD.size], memoryview(data[HEAD.size :])


def meet(desk: Desk, nodes: range, secret: bytes = SECRET) -> tuple[NewcomerEnd, HostEnd, bytes]:
    """Both ends after the handshake, and the newcomer's request."""
    newcomer, host = NewcomerEnd(secret), HostEnd(desk, SECRET, NOBODY)
    opening = newcomer.opening()
    assert is_newcomer(opening)
    assert len(opening) == OPENING_BYTES
    answer = host.answer(opening)
    assert len(answer) == ANSWER_BYTES
    said = newcomer.ask(answer, nodes)
    host.proved(said[:PROOF_BYTES])
    return newcomer, host, said[PROOF_BYTES:]


def test_a_newcomer_gets_the_document_and_the_files_that_it_wishes_for(desk: Desk) -> None:
    newcomer, host, request = meet(desk, range(3, 6))
    offer = host.offer(*cut(request))
    assert newcomer.described(*cut(offer)) == (False, DOCUMENT)
    records = list(host.deliver(*cut(newcomer.wish(["large", "small"]))))
    parts = [newcomer.part(*cut(record)) for record in records]
    assert b"".join(parts) == desk.files["large"].read_bytes() + b"few bytes"
    assert max(map(len, parts)) == PART_BYTES
    said = request + offer + b"".join(records)
    assert not any(plain in said for plain in (DOCUMENT, b"few bytes", ASKED.pack(3, 6), SECRET))


def test_who_has_all_files_wishes_for_none(desk: Desk) -> None:
    newcomer, host, request = meet(desk, range(3, 6))
    newcomer.described(*cut(host.offer(*cut(request))))
    assert list(host.deliver(*cut(newcomer.wish([])))) == []


@drives(Attack.NEWCOMER_WITHOUT_SECRET)
def test_without_the_secret_nothing_is_said(attack: Attack, desk: Desk) -> None:
    with pytest.raises(AuthenticationError, match=attack.outcome):
        meet(desk, range(3, 6), b"t" * 32)
    stranger = NewcomerEnd(SECRET)
    with pytest.raises(AuthenticationError, match="does not hold the cluster's secret"):
        stranger.ask(HostEnd(desk, b"t" * 32, NOBODY).handshake.transcript.speak(b"answer", b"x" * 10), range(3, 6))
    assert desk.claims == []


def test_a_newcomer_is_no_node_and_a_node_no_newcomer(desk: Desk) -> None:
    run = RunIdentity()
    node = ServerHandshake(Introduction(node_id(0), bytes(16), run, bytes(16)), SECRET)
    with pytest.raises(AuthenticationError, match="looks for another node"):
        node.answer(NewcomerEnd(SECRET).opening(), 0.0)
    opening = client(SECRET).opening()
    assert not is_newcomer(opening)
    with pytest.raises(AuthenticationError, match="looks for another node"):
        HostEnd(desk, SECRET, NOBODY).answer(opening)


@drives(Attack.NEWCOMER_OVERHEARD)
def test_what_was_overheard_serves_nobody(attack: Attack, desk: Desk) -> None:
    newcomer = NewcomerEnd(SECRET)
    opening = newcomer.opening()
    overheard = newcomer.ask(HostEnd(desk, SECRET, NOBODY).answer(opening), range(3, 6))
    later = HostEnd(desk, SECRET, NOBODY)
    later.answer(opening)
    with pytest.raises(AuthenticationError, match=attack.outcome):
        later.proved(overheard[:PROOF_BYTES])


@pytest.mark.parametrize("place", [0, HEAD.size - 1, HEAD.size, -1])
def test_a_changed_record_is_not_taken(desk: Desk, place: int) -> None:
    newcomer, host, request = meet(desk, range(3, 6))
    damaged = bytearray(request)
    damaged[place] ^= 1
    with pytest.raises((AuthenticationError, UnintelligibleError)):
        host.offer(*cut(bytes(damaged)))
    assert desk.claims == []
    offer = bytearray(host.session.sealer.seal(RecordKind.FRAME, b"\0" + DOCUMENT))
    offer[place] ^= 1
    with pytest.raises((AuthenticationError, UnintelligibleError)):
        newcomer.described(*cut(bytes(offer)))


WISHES = {
    Attack.WISH_ELSEWHERE: b"small\nelsewhere",
    Attack.WISH_ABOVE: b"../small",
    Attack.WISH_A_PATH: b"/etc/passwd",
    Attack.WISH_TWICE: b"small\nsmall",
    Attack.WISH_NO_TEXT: b"\xff",
    Attack.WISH_EMPTY: b"\n",
    Attack.WISH_LONG: b"x" * (MOST_WISH_BYTES + 1),
}


@drives(*WISHES)
def test_only_files_that_are_offered_can_be_had(attack: Attack, desk: Desk) -> None:
    newcomer, host, request = meet(desk, range(3, 6))
    host.offer(*cut(request))
    with pytest.raises(UnintelligibleError, match=attack.outcome):
        list(host.deliver(*cut(newcomer.session.sealer.seal(RecordKind.FRAME, WISHES[attack]))))


def test_what_a_holder_of_the_secret_says_must_make_sense_too(desk: Desk) -> None:
    for content, said in ((b"", "a request of 0 bytes"), (b"x" * 100, "a request of 100 bytes")):
        newcomer, host, _ = meet(desk, range(3, 6))
        # The nonce of its request, which was not sent.
        host.session.opener.records += 1
        with pytest.raises(UnintelligibleError, match=said):
            host.offer(*cut(newcomer.session.sealer.seal(RecordKind.FRAME, content)))
    newcomer, host, _ = meet(desk, range(3, 6))
    for kind in set(RecordKind) - {RecordKind.FRAME, RecordKind.REFUSED}:
        with pytest.raises(UnintelligibleError, match=f"{kind.name} instead of FRAME"):
            newcomer.described(*cut(host.session.sealer.seal(kind, b"\0" + DOCUMENT)))
    for kind, content in ((RecordKind.PART, b""), (RecordKind.FRAME, b"x")):
        with pytest.raises(UnintelligibleError):
            newcomer.part(*cut(host.session.sealer.seal(kind, content)))


def test_nodes_are_kept_for_one_newcomer_at_a_time(desk: Desk) -> None:
    first = desk.claim(3, 5, NOBODY)
    with pytest.raises(RefusedError, match="nodes 4 are taken; free ones: 5"):
        desk.claim(4, 6, NOBODY)
    with pytest.raises(RefusedError, match="nodes 2 are taken; free ones: 5"):
        desk.claim(2, 3, NOBODY)
    assert desk.claim(5, 6, NOBODY) == {5}
    with pytest.raises(RefusedError, match="free ones: none"):
        desk.claim(5, 6, NOBODY)
    desk.give_back(first)
    with pytest.raises(RefusedError, match="nodes 3 are taken; free ones: 4"):
        desk.claim(3, 5, [node_id(3)])
    assert desk.claim(3, 5, NOBODY) == {3, 4}


@pytest.mark.parametrize(("first", "last"), [(3, 3), (4, 3), (5, 7), (6, 8), (4_000_000_000, 4_000_000_001)])
def test_nodes_that_there_are_not_can_not_be_had(desk: Desk, first: int, last: int) -> None:
    with pytest.raises(RefusedError, match=r"the run has nodes 0 to 5"):
        desk.claim(first, last, NOBODY)


def test_once_the_run_goes_on_those_can_be_had_that_it_has_lost(desk: Desk) -> None:
    claim = desk.claim(3, 6, NOBODY)
    desk.see(range(6))
    assert desk.has_begun
    with pytest.raises(RefusedError, match="free ones: none"):
        desk.claim(3, 6, NOBODY)
    # Its newcomer is still connected: the nodes have come, and what becomes of them then is another matter.
    desk.see([0, 2, 3, 4])
    with pytest.raises(RefusedError, match="nodes 0 are taken; free ones: 1, 5"):
        desk.claim(0, 2, NOBODY)
    again = desk.claim(5, 6, [node_id(5)])
    desk.give_back(claim)
    with pytest.raises(RefusedError, match="free ones: 1"):
        desk.claim(5, 6, NOBODY)
    desk.give_back(again)
    assert desk.claim(5, 6, NOBODY) == {5}


def test_a_node_that_joins_the_run_itself_gives_nothing_away(desk: Desk) -> None:
    desk.has_begun = True
    with pytest.raises(RefusedError, match="about to join the run itself"):
        desk.claim(3, 6, NOBODY)
    desk.see([0, 1, 2])
    newcomer, host, request = meet(desk, range(3, 6))
    assert newcomer.described(*cut(host.offer(*cut(request))))[0]


def test_a_refusal_is_heard(desk: Desk) -> None:
    newcomer, host, request = meet(desk, range(2, 6))
    with pytest.raises(RefusedError) as refused:
        host.offer(*cut(request))
    with pytest.raises(RefusedError, match="nodes 2 are taken; free ones: 3 to 5"):
        newcomer.described(*cut(host.refusal(str(refused.value))))
