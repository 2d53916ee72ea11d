"""Both ends of a connection prove the secret and agree on keys; nothing that somebody without it says verifies."""

from __future__ import annotations

import random
import struct

import pytest

from skippipe.transport.handshake import (
    ANSWER,
    ANSWER_BYTES,
    OPENING,
    OPENING_BYTES,
    PROOF_BYTES,
    ClientHandshake,
    Introduction,
    ServerHandshake,
)
from skippipe.transport.identity import AuthenticationError, node_id
from skippipe.transport.records import HEAD, TAG_BYTES, Opener, RecordKind, Sealer
from skippipe.transport.run_identity import UNKNOWN, RunIdentity
from tests.attacks import Attack
from tests.cases import Layer, drives

SECRET = b"s" * 32


def run(rate: str = "0.1", run_id: bytes = UNKNOWN) -> RunIdentity:
    return RunIdentity({"optimizer.learning_rate": rate, "seed": "0"}, run_id)


def client(secret: bytes | None = SECRET, identity: RunIdentity | None = None, server: int = 1) -> ClientHandshake:
    introduction = Introduction(node_id(0), b"0" * 16, identity or run(), b"clock of node 0 ")
    return ClientHandshake(introduction, node_id(server), secret)


def server(secret: bytes | None = SECRET, identity: RunIdentity | None = None) -> ServerHandshake:
    return ServerHandshake(Introduction(node_id(1), b"1" * 16, identity or run(), b"clock of node 1 "), secret)


class Conversation:
    """A handshake whose messages somebody in between may change; raises what the two ends raise."""

    def __init__(self, ours: ClientHandshake, theirs: ServerHandshake) -> None:
        self.client, self.server = ours, theirs
        self.opening = ours.opening()
        self.answer = self.proof = b""

    def go_on(self, place: tuple[int, int] | None = None) -> tuple[Sealer, Opener]:
        """All three messages, one bit of one of them changed; a sealer and an opener of the same direction."""
        self.answer = self.server.answer(self.changed(0, self.opening, place), 7.5)
        assert self.client.answered(self.changed(1, self.answer, place)) == 7.5
        self.proof, ours = self.client.prove(1.5, 0.1)
        theirs = self.server.proved(self.changed(2, self.proof, place))
        return ours.sealer, theirs.opener

    @staticmethod
    def changed(number: int, message: bytes, place: tuple[int, int] | None) -> bytes:
        if place is None or place[0] != number:
            return message
        damaged = bytearray(message)
        damaged[place[1] // 8] ^= 1 << place[1] % 8
        return bytes(damaged)


def test_both_ends_of_a_handshake_agree() -> None:
    ours, theirs = client(), server(identity=run(run_id=b"r" * 16))
    sealer, opener = Conversation(ours, theirs).go_on()
    record = sealer.seal(RecordKind.BEAT, b"hello")
    assert b"hello" not in record
    assert opener.open(record[: HEAD.size], memoryview(record)[HEAD.size :]) == b"hello"
    assert (theirs.client, theirs.client_session, theirs.offset) == (node_id(0), b"0" * 16, 1.5)
    assert (ours.me.run.run_id, ours.server_session, ours.same_clock) == (b"r" * 16, b"1" * 16, False)


def test_who_overheard_all_and_learns_the_secret_later_can_read_nothing() -> None:
    talk = Conversation(client(), server())
    sealer, opener = talk.go_on()
    record = sealer.seal(RecordKind.BEAT, b"hello")
    thief = server()
    thief.answer(talk.opening, 7.5)
    thief.transcript.said = talk.opening + talk.answer
    _, guessed = thief.proved(talk.proof)
    with pytest.raises(AuthenticationError, match="a record's tag does not verify"):
        guessed.open(record[: HEAD.size], memoryview(record)[HEAD.size :])
    assert opener.open(record[: HEAD.size], memoryview(record)[HEAD.size :]) == b"hello"


CHANGED = {
    Attack.CHANGED_OPENING: (0, OPENING_BYTES),
    Attack.CHANGED_ANSWER: (1, ANSWER_BYTES),
    Attack.CHANGED_PROOF: (2, PROOF_BYTES),
}
"""Which message, and its length."""


@drives(*CHANGED)
def test_no_bit_of_a_handshake_can_be_changed(attack: Attack) -> None:
    number, size = CHANGED[attack]
    for bit in range(8 * size):
        with pytest.raises(AuthenticationError, match=attack.outcome):
            Conversation(client(), server()).go_on((number, bit))


def attempt(attack: Attack) -> None:
    """Raises AuthenticationError at the end that is attacked."""
    match attack:
        case Attack.WRONG_SECRET:
            server().answer(client(b"w" * 32).opening(), 0.0)
        case Attack.NO_SECRET:
            server().answer(client(None).opening(), 0.0)
        case Attack.ANOTHER_RUN:
            server().answer(client(identity=run("0.2")).opening(), 0.0)
        case Attack.ANOTHER_RUN_ID:
            server(identity=run(run_id=b"a" * 16)).answer(client(identity=run(run_id=b"b" * 16)).opening(), 0.0)
        case Attack.ANOTHER_NODE:
            server().answer(client(server=2).opening(), 0.0)
        case Attack.REPLAYED_OPENING:
            earlier = Conversation(client(), server())
            earlier.go_on()
            attacked = server()
            attacked.answer(earlier.opening, 0.0)
            attacked.proved(earlier.proof)
        case Attack.REFLECTED:
            attacked = server()
            attacked.proved(attacked.answer(client().opening(), 0.0)[:PROOF_BYTES])
        case Attack.SERVER_WITHOUT_SECRET:
            deceived, impostor = client(), server(None)
            impostor.transcript.said = deceived.opening()
            deceived.answered(impostor.transcript.speak(b"answer", bytes(ANSWER.size)))
        case _:
            assert attack is Attack.REPLAYED_ANSWER
            earlier = Conversation(client(), server())
            earlier.go_on()
            deceived = client()
            deceived.opening()
            deceived.answered(earlier.answer)


@drives(*(attack for attack in Attack.at(Layer.HANDSHAKE) if attack not in CHANGED))
def test_an_attack_on_the_handshake_fails(attack: Attack) -> None:
    with pytest.raises(AuthenticationError, match=attack.outcome):
        attempt(attack)


def test_no_key_is_made_for_who_does_not_hold_the_secret() -> None:
    attacked = server()
    with pytest.raises(AuthenticationError):
        attacked.answer(client(b"w" * 32).opening(), 0.0)
    assert "private" not in vars(attacked)


@pytest.mark.parametrize("seed", range(5))
def test_random_handshake_messages_prove_nothing(seed: int) -> None:
    generator = random.Random(seed)
    for _ in range(200):
        data = generator.randbytes(generator.choice([0, 1, OPENING_BYTES, generator.randrange(500)]))
        magic = OPENING.pack(b"SKIPPIPE", *[b""] * 7) + generator.randbytes(32)
        for opening in (data, magic):
            with pytest.raises((AuthenticationError, struct.error)):
                server().answer(opening, 0.0)


def test_open_links_seal_nothing_but_speak_the_same() -> None:
    ours, theirs = client(None), server(None)
    sealer, opener = Conversation(ours, theirs).go_on()
    record = sealer.seal(RecordKind.BEAT, b"hello")
    assert record[HEAD.size : -TAG_BYTES] == b"hello"
    assert opener.open(record[: HEAD.size], memoryview(record)[HEAD.size :]) == b"hello"
