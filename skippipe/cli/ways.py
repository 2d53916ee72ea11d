"""What a probe's findings say about the way to other machines, and whether they run the same."""

from __future__ import annotations

import base64
import binascii

from skippipe.cli.machine import Finding, Verdict
from skippipe.errors import numbers_shown
from skippipe.transport.addresses import Address, shown_address
from skippipe.transport.probe import Probe, Way, Word
from skippipe.transport.run_identity import FOREIGN, RunIdentity

TABLE = "table"
"""Of what probes tell of themselves: hashes of the fields that must be equal, as run_identity.py compares them."""
SOON_S = 1.0
"""Clocks that differ by less are called equal."""


def told(identity: RunIdentity, versions: dict[str, str]) -> dict[str, str]:
    """What other probes are told of this machine."""
    return {TABLE: base64.b64encode(identity.table).decode(), **versions}


def judge(probe: Probe, identity: RunIdentity, versions: dict[str, str], waited_s: float) -> list[Finding]:
    """A finding for each other machine, for each address where nobody of them was found, and for the clocks."""
    findings = []
    named: set[Address] = set()
    for word in sorted(probe.words.values(), key=lambda word: min(word.nodes)):
        own = [probe.ways[address] for address in word.nodes.values() if address in probe.ways]
        named |= {*word.nodes.values()}
        findings.append(judge_machine(probe, word, own, identity, versions))
    rest = [way for way in probe.ways.values() if way.address not in named]
    findings += [judge_address(way, identity, waited_s) for way in rest]
    here = {*probe.own, *(node for word in probe.words.values() for node in word.nodes)}
    missing = [node for node in range(probe.nodes) if node not in here]
    if missing and not any(way.table is not None for way in rest):
        text = (
            f"nobody answers for nodes {numbers_shown(missing)} in {waited_s:.0f} s; start check, or the run, there too"
        )
        findings.append(Finding("peers", Verdict.NOTE, text))
    if missing and probe.strangers:
        text = f"{', '.join(sorted(probe.strangers))}: called under another secret; copy the same one to every machine"
        findings.append(Finding("strangers", Verdict.STOP, text))
    return [*findings, judge_clocks(probe)]


def judge_machine(
    probe: Probe, word: Word, ways: list[Way], identity: RunIdentity, versions: dict[str, str]
) -> Finding:
    """Of a machine that runs the doctor too, and the ways to its nodes."""
    what = f"nodes {numbers_shown(word.nodes)}"
    first = shown_address(word.nodes[min(word.nodes)])
    if twice := sorted(word.nodes.keys() & probe.own.keys()):
        return Finding(
            what, Verdict.STOP, f"{first}: nodes {numbers_shown(twice)} are here too; give each machine its own nodes"
        )
    for way in ways:
        if not way.is_open:
            return Finding(what, Verdict.STOP, f"{shown_address(way.address)}: {obstacle(way)}")
    if differs := differences(identity, table_of(word)):
        return Finding(what, Verdict.STOP, f"{first}: runs something else; it differs in: {', '.join(differs)}")
    if unreached := [shown_address(address) for address in probe.own.values() if address not in word.reached]:
        more = f" and {len(unreached) - 1} more" if unreached[1:] else ""
        text = f"{first}: it does not reach {unreached[0]}{more} here: is it forwarded, does a firewall let it in?"
        return Finding(what, Verdict.STOP, text)
    reached = f"{first}: reached there and back, same secret, same run"
    other = [f"{name} {word.about.get(name)} there" for name, text in versions.items() if word.about.get(name) != text]
    if other:
        return Finding(what, Verdict.NOTE, f"{reached}, but {', '.join(other)}")
    return Finding(what, Verdict.FINE, reached)


def judge_address(way: Way, identity: RunIdentity, waited_s: float) -> Finding:
    """Of an address at which no doctor was found."""
    what = shown_address(way.address)
    if way.table is not None:
        if differs := differences(identity, way.table):
            return Finding(what, Verdict.STOP, f"a run of something else; it differs in: {', '.join(differs)}")
        if not way.connects:
            return Finding(what, Verdict.STOP, obstacle(way))
        return Finding(what, Verdict.FINE, "the run is there: reached, same secret, same fields")
    if way.hangs_up:
        text = "takes connections, but hangs up: it holds another secret, or something else listens there"
        return Finding(what, Verdict.STOP, text)
    return Finding(what, Verdict.NOTE, f"no answer in {waited_s:.0f} s ({way.trouble}); start check, or the run, there")


def judge_clocks(probe: Probe) -> Finding:
    """How far the wall clocks of others are ahead; no run minds."""
    told = []
    for number, word in sorted(probe.words.items()):
        clocks = [way.clock for way in probe.ways.values() if way.clock and way.word and min(way.word.nodes) == number]
        if clocks:
            ahead, error = min(clocks, key=lambda clock: clock[1])
            is_near = abs(ahead) < SOON_S + error
            how = "agrees with" if is_near else f"is {abs(ahead):.0f} s {'behind' if ahead > 0 else 'ahead of'}"
            told.append((is_near, f"{how} that of nodes {numbers_shown(word.nodes)}"))
    if not told:
        return Finding("clock", Verdict.FINE, "not compared: nobody else runs check; a run needs no equal clocks")
    verdict = Verdict.FINE if all(is_near for is_near, _ in told) else Verdict.NOTE
    lines = ", ".join(text for _, text in told)
    return Finding("clock", verdict, lines if verdict is Verdict.FINE else f"{lines}; a run does not mind, logs do")


def obstacle(way: Way) -> str:
    """What is in the way to a node that is there."""
    if not way.greets and not way.connects:
        return (
            f"answers neither datagrams (UDP) nor connections (TCP: {way.trouble}): open or forward the port for both"
        )
    if not way.greets:
        return "answers connections (TCP), but no datagrams (UDP): open or forward the same port for both"
    return f"answers datagrams (UDP), but no connections (TCP): {way.trouble}"


def differences(identity: RunIdentity, table: bytes) -> list[str]:
    """Fields that are known here and differ there; what a run compares besides, such as its text, is left to it."""
    try:
        return [name for name in identity.differences(table, identity.run_id) if name != FOREIGN]
    except ValueError as error:
        return [str(error)]


def table_of(word: Word) -> bytes:
    """The table that a probe has told, empty if it is none: all fields differ then."""
    try:
        return base64.b64decode(word.about.get(TABLE, ""), validate=True)
    except binascii.Error:
        return b""
