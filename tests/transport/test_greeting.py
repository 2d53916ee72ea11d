"""Datagrams of discovery: those who have greeted hear each other, and nothing that somebody else sends is believed."""

from __future__ import annotations

import random

import pytest

from skippipe.transport.addresses import pack_address
from skippipe.transport.greeting import CONTENT, HEAD_BYTES, Greetings
from skippipe.transport.run_identity import UNKNOWN, RunIdentity
from tests.attacks import Attack
from tests.cases import Layer, drives

SECRET = b"s" * 32
ME, YOU = ("10.0.0.1", 4000), ("10.0.0.2", 4000)


def run(rate: str = "0.1", run_id: bytes = UNKNOWN) -> RunIdentity:
    return RunIdentity({"optimizer.learning_rate": rate, "seed": "0"}, run_id)


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


@drives(*Attack.at(Layer.DATAGRAM))
def test_an_attack_by_datagrams_delivers_nothing(attack: Attack) -> None:
    overheard = exchange(Greetings(ME, SECRET, run()), theirs := Greetings(YOU, SECRET, run()), b"find node 7")
    generator = random.Random(0)
    if attack is Attack.EARLIER_RUN:
        theirs = Greetings(YOU, SECRET, run())
    elif attack is Attack.ANOTHER_ADDRESS:
        overheard = [data[:1] + pack_address(("10.0.0.3", 4000)) + data[HEAD_BYTES:] for data in overheard]
    elif attack is Attack.CHANGED_DATAGRAM:
        overheard = [
            data[:i] + bytes([data[i] ^ 1 << generator.randrange(8)]) + data[i + 1 :]
            for data in overheard
            for i in range(len(data))
        ]
    elif attack is Attack.DATAGRAM_WITHOUT_SECRET:
        overheard = Greetings(ME, b"w" * 32, run()).send(b"find node 7", YOU, 0.0)
    elif attack is Attack.DATAGRAM_OF_ANOTHER_RUN:
        stranger = Greetings(ME, SECRET, run("0.2"))
        overheard = [stranger.sealed(b"find node 7", theirs.session)]
    else:
        assert attack is Attack.RANDOM_DATAGRAM
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
