"""What somebody without the secret may try on handshake and datagrams: nothing of it verifies."""

from __future__ import annotations

import random
import struct
from enum import Enum

import pytest

from skippipe.transport.addresses import pack_address
from skippipe.transport.greeting import CONTENT, HEAD_BYTES, Greetings
from skippipe.transport.handshake import (
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

SECRET = b"s" * 32
ME, YOU = ("10.0.0.1", 4000), ("10.0.0.2", 4000)


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


MESSAGE_BYTES = (OPENING_BYTES, ANSWER_BYTES, PROOF_BYTES)


@pytest.mark.parametrize("number", range(3), ids=["opening", "answer", "proof"])
def test_no_bit_of_a_handshake_can_be_changed(number: int) -> None:
    for bit in range(8 * MESSAGE_BYTES[number]):
        with pytest.raises(AuthenticationError):
            Conversation(client(), server()).go_on((number, bit))


class Attack(Enum):
    """What a connection may begin with."""

    WRONG_SECRET = "a client with another secret"
    NO_SECRET = "a client that proves nothing"
    ANOTHER_RUN = "a client of a run of another configuration"
    ANOTHER_RUN_ID = "a client of another run of the same configuration"
    ANOTHER_NODE = "an opening that was meant for another node"
    REPLAYED_OPENING = "an opening of an earlier connection, and its proof"
    REFLECTED = "the server's own answer for a proof"
    SERVER_WITHOUT_SECRET = "a server that proves nothing"
    REPLAYED_ANSWER = "a server's answer of an earlier connection"

    def try_it(self) -> None:
        """Raises AuthenticationError at the end that is attacked."""
        match self:
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
                Conversation(client(), server(None)).go_on()
            case Attack.REPLAYED_ANSWER:
                earlier = Conversation(client(), server())
                earlier.go_on()
                client().answered(earlier.answer)


@pytest.mark.parametrize("attack", Attack)
def test_an_attack_on_the_handshake_fails(attack: Attack) -> None:
    with pytest.raises(AuthenticationError):
        attack.try_it()


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


def exchange(ours: Greetings, theirs: Greetings, content: bytes, now: float = 0.0) -> list[bytes]:
    """Deliver a content over datagrams that get lost nowhere; all datagrams that travelled from us to them."""
    travelled = []
    out = ours.send(content, YOU, now)
    for _ in range(4):
        back = []
        for datagram in out:
            travelled.append(datagram)
            received = theirs.receive(datagram, now)
            assert not received.stranger
            back += received.answers
            if received.content is not None:
                assert received.content == content
                return travelled
        out = [answer for datagram in back for answer in ours.receive(datagram, now).answers]
    raise AssertionError("it did not come")


def test_datagrams_arrive_between_processes_that_have_greeted() -> None:
    ours, theirs = Greetings(ME, SECRET, run()), Greetings(YOU, SECRET, run(run_id=b"r" * 16))
    assert len(exchange(ours, theirs, b"find node 7")) == 2
    assert ours.run.run_id == b"r" * 16
    (datagram,) = ours.send(b"find node 8", YOU, 0.1)
    assert theirs.receive(datagram, 0.1).content == b"find node 8"
    (back,) = theirs.send(b"found", ME, 0.1)
    assert ours.receive(back, 0.1).content == b"found"


class DatagramAttack(Enum):
    """What may come as a datagram."""

    EARLIER_RUN = "datagrams of an earlier run of the same configuration"
    ANOTHER_ADDRESS = "datagrams sent again that name another address"
    CHANGED = "datagrams with one bit changed"
    WRONG_SECRET = "datagrams under another secret"
    ANOTHER_RUN = "content of a run of another configuration"
    RANDOM = "random bytes"


@pytest.mark.parametrize("attack", DatagramAttack)
def test_an_attack_by_datagrams_delivers_nothing(attack: DatagramAttack) -> None:
    overheard = exchange(Greetings(ME, SECRET, run()), theirs := Greetings(YOU, SECRET, run()), b"find node 7")
    generator = random.Random(0)
    if attack is DatagramAttack.EARLIER_RUN:
        theirs = Greetings(YOU, SECRET, run())
    elif attack is DatagramAttack.ANOTHER_ADDRESS:
        overheard = [data[:1] + pack_address(("10.0.0.3", 4000)) + data[HEAD_BYTES:] for data in overheard]
    elif attack is DatagramAttack.CHANGED:
        overheard = [
            data[:i] + bytes([data[i] ^ 1 << generator.randrange(8)]) + data[i + 1 :]
            for data in overheard
            for i in range(len(data))
        ]
    elif attack is DatagramAttack.WRONG_SECRET:
        overheard = Greetings(ME, b"w" * 32, run()).send(b"find node 7", YOU, 0.0)
    elif attack is DatagramAttack.ANOTHER_RUN:
        stranger = Greetings(ME, SECRET, run("0.2"))
        overheard = [stranger.sealed(b"find node 7", theirs.session)]
    else:
        overheard = [CONTENT + generator.randbytes(generator.randrange(300)) for _ in range(1000)]
    session = theirs.peers.get(ME, None)
    for datagram in overheard:
        received = theirs.receive(datagram, 1.0)
        assert received.content is None
        assert received.differences is None
        # A greeting may be answered, with no more bytes than it had; nothing is learned from it.
        assert sum(map(len, received.answers)) <= len(datagram)
    assert theirs.peers.get(ME, None) is session


def test_a_replayed_greeting_of_another_configuration_is_believed_by_nobody() -> None:
    theirs = Greetings(YOU, SECRET, run())
    (greeting,) = Greetings(ME, SECRET, run("0.2")).send(b"x", YOU, 0.0)
    assert theirs.receive(greeting, 1.0).differences is None
    here = Greetings(ME, SECRET, run("0.2"))
    (greeting,) = here.send(b"x", YOU, 2.0)
    answers = theirs.receive(greeting, 2.0).answers
    received = [here.receive(answer, 2.0) for answer in answers]
    assert [reply.differences for reply in received if reply.differences] == [["optimizer.learning_rate (0.2 here)"]]
    back = [theirs.receive(answer, 2.0).differences for reply in received for answer in reply.answers]
    assert back == [["optimizer.learning_rate (0.1 here)"]] * 2


def test_both_learn_that_they_differ_though_one_ends_at_the_first_word_of_it() -> None:
    here, theirs = Greetings(ME, SECRET, run("0.2")), Greetings(YOU, SECRET, run())
    # Theirs greeted before we were there, and so does not ask back now.
    assert theirs.send(b"x", ME, 2.0)
    (greeting,) = here.send(b"x", YOU, 2.1)
    (welcome,) = theirs.receive(greeting, 2.1).answers
    received = here.receive(welcome, 2.1)
    assert received.differences == ["optimizer.learning_rate (0.2 here)"]
    (last,) = received.answers
    received = theirs.receive(last, 2.1)
    assert received.differences == ["optimizer.learning_rate (0.1 here)"]
    # If both lived on, they would not go on telling each other.
    (again,) = received.answers
    assert here.receive(again, 2.1).answers == []


@pytest.mark.parametrize("seed", range(20))
def test_datagrams_arrive_though_many_are_lost_repeated_and_late(seed: int) -> None:
    generator = random.Random(seed)
    ends = {ME: Greetings(ME, SECRET, run()), YOU: Greetings(YOU, SECRET, run())}
    flying: list[tuple[bytes, tuple[str, int], tuple[str, int]]] = []
    arrived: dict[tuple[str, int], set[bytes]] = {ME: set(), YOU: set()}
    now = 0.0
    while not (arrived[ME] and arrived[YOU]):
        now += 0.05
        assert now < 100
        source, target = generator.choice([(ME, YOU), (YOU, ME)])
        content = generator.randbytes(20)
        flying += [(data, source, target) for data in ends[source].send(content, target, now)]
        if generator.random() < 0.01:
            # A process is started again: nothing that was meant for the old one verifies.
            ends[source] = Greetings(source, SECRET, run())
        generator.shuffle(flying)
        for _ in range(generator.randrange(3)):
            if flying:
                data, source, target = flying.pop() if generator.random() < 0.8 else generator.choice(flying)
                if generator.random() < 0.3:
                    continue
                received = ends[target].receive(data, now)
                flying += [(answer, target, source) for answer in received.answers]
                assert received.differences is None
                if received.content is not None:
                    arrived[target].add(received.content)


def test_open_links_seal_nothing_but_speak_the_same() -> None:
    ours, theirs = client(None), server(None)
    sealer, opener = Conversation(ours, theirs).go_on()
    record = sealer.seal(RecordKind.BEAT, b"hello")
    assert record[HEAD.size : -TAG_BYTES] == b"hello"
    assert opener.open(record[: HEAD.size], memoryview(record)[HEAD.size :]) == b"hello"


def test_a_welcome_of_an_earlier_run_is_believed_by_nobody() -> None:
    earlier, server_then = Greetings(ME, SECRET, run("0.2")), Greetings(YOU, SECRET, run("0.3", b"e" * 16))
    (greeting,) = earlier.send(b"x", YOU, 0.0)
    welcome = server_then.receive(greeting, 0.0).answers[0]
    assert earlier.receive(welcome, 0.0).differences
    later = Greetings(ME, SECRET, run("0.2"))
    received = later.receive(welcome, 1.0)
    assert received.stranger
    assert received.differences is None
    assert later.run.run_id == UNKNOWN
