"""Probes on real sockets: what they find of each other, of runs and of nobody, and that runs take no notice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from skippipe.transport.addresses import Address
from skippipe.transport.membership import Listeners
from skippipe.transport.probe import Probe, Word
from skippipe.transport.run_identity import RunIdentity
from tests.end_to_end.conftest import free_ports
from tests.transport.link_pair import SECRET, Setup, open_pair, wait_for_failure

SECONDS = 60.0
RUN = RunIdentity({"seed": "0"})


class Machines:
    """Probes of machines that are all on loopback."""

    def __init__(self) -> None:
        self.listeners: list[Listeners] = []

    def probe(
        self, nodes: range, targets: list[Address], of: int, secret: bytes = SECRET, node: int | None = None
    ) -> Probe:
        """The probe of a machine with these nodes of a run of `of`, which expects a run's `node` wherever it looks."""
        # As at fixed ports: connections go to the port of datagrams.
        port = free_ports(len(nodes))
        own = {node: Listeners.bind("127.0.0.1", port + place) for place, node in enumerate(nodes)}
        self.listeners += own.values()
        return Probe(own, targets, secret, {"from": str(nodes.start)}, lambda address: node, of)


@pytest.fixture
def machines() -> Iterator[Machines]:
    made = Machines()
    yield made
    for listeners in made.listeners:
        listeners.close()


def run(*probes: Probe, seconds: float = SECONDS) -> None:
    async def all_of_them() -> None:
        await asyncio.gather(*(probe.run(seconds) for probe in probes))

    asyncio.run(all_of_them())


def test_probes_that_know_one_machine_find_all_and_end_of_their_own(machines: Machines) -> None:
    first = machines.probe(range(2), [], 6)
    meeting = [first.own[1]]
    others = [machines.probe(nodes, meeting, 6) for nodes in (range(2, 5), range(5, 6))]
    run(first, *others)
    for probe in (first, *others):
        assert probe.is_done
        assert len(probe.ways) == 6 - len(probe.own)
        assert all(way.is_open for way in probe.ways.values())
        for other in (one for one in (first, *others) if one is not probe):
            word = probe.words[min(other.own)]
            assert word.nodes == other.own
            assert word.about == {"from": str(min(other.own))}
            assert set(word.reached) >= set(probe.own.values())
        clocks = [way.clock for way in probe.ways.values()]
        assert all(clock is not None and abs(clock[0]) <= clock[1] + 0.01 for clock in clocks)


def test_a_probe_finds_a_run_that_takes_no_notice_even_if_it_runs_something_else(machines: Machines) -> None:
    with open_pair(Setup(runs=(RUN, RUN))) as pair:
        own = pair.receiver.listeners
        # Of a run at fixed ports; here the ports of datagrams and connections differ.
        looking = machines.probe(range(1), [own.bound], 2, node=1)
        run(looking, seconds=3.0)
        (way,) = looking.ways.values()
        assert way.greets
        assert way.table == RUN.table
        assert wait_for_failure(pair.inbox, 0.0) is None
        assert not pair.receiver.streams.neighbours
        pair.sender.connect([1])


def test_half_open_ways_are_told_apart(machines: Machines) -> None:
    whole = machines.probe(range(1), [], 3)
    without_connections = machines.probe(range(1, 2), [], 3)
    (deaf,) = without_connections.listeners.values()
    looking = machines.probe(range(2, 3), [whole.own[0], without_connections.own[1]], 3)

    async def look() -> None:
        greeter = await without_connections.listen(deaf)
        deaf.streams.close()
        await asyncio.gather(looking.run(4.0), whole.run(4.0))
        greeter.transport.close()

    asyncio.run(look())
    assert looking.ways[whole.own[0]].is_open
    way = looking.ways[without_connections.own[1]]
    assert (way.greets, way.connects, way.trouble) == (True, False, "Connection refused")
    assert not looking.is_done


def test_another_secret_is_seen_from_both_sides_and_nobody_from_one(machines: Machines) -> None:
    stays = machines.probe(range(1), [], 3)
    nobody = Listeners.bind("127.0.0.1")
    address = nobody.bound
    nobody.close()
    comes = machines.probe(range(1, 2), [stays.own[0], address], 3, secret=b"x" * 32)
    run(stays, comes, seconds=5.0)
    assert stays.strangers == {"127.0.0.1"}
    assert comes.ways[stays.own[0]].hangs_up
    missing = comes.ways[address]
    assert (missing.greets, missing.connects, missing.hangs_up) == (False, False, False)
    assert missing.trouble == "Connection refused"
    assert not comes.words


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "Expecting value"),
        (b"[]", "no word of a probe"),
        (b"7", "no word of a probe"),
        (b'{"nodes": [[0, ["10.0.0.1", 70000]]]}', "no port: 70000"),
        (b'{"nodes": [[0, ["nowhere", 4000]]]}', "does not appear to be an IPv4 or IPv6 address"),
        (b'{"nodes": [[0, ["10.0.0.1", 4000]]], "about": []}', "no word of a probe"),
        (b'{"nodes": [], "about": {}, "known": [], "reached": []}', "no nodes"),
        (b"[" * 100_000, "no word of a probe"),
        (b'{"nodes": [[Infinity, ["10.0.0.1", 4000]]]}', "no word of a probe"),
    ],
)
def test_words_are_typed(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Word.from_bytes(data)


def test_words_come_back() -> None:
    word = Word({3: ("10.0.0.1", 4003)}, {"torch": "2"}, (("fd00::1", 4000),), (), True, 7.5)
    assert Word.from_bytes(word.to_bytes()) == word
