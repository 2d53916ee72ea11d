"""A doctor: whether this machine can take its part in a run, and whether it reaches the others, as a table.

Start it on every machine at about the same time, or beside a run that is going on. Nothing is changed or trained.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING

from skippipe.cli.machine import (
    Finding,
    Verdict,
    bind,
    look_at_address,
    look_at_device,
    look_at_disk,
    look_at_fields,
    look_at_memory,
    look_at_name,
    look_at_secret,
    look_at_text,
    look_at_versions,
    versions,
)
from skippipe.cli.prepare import whole_number
from skippipe.cli.setting_choice import add_setting_arguments, chosen
from skippipe.cli.vocabulary import vocabulary_of
from skippipe.config import RunConfig
from skippipe.errors import UserError
from skippipe.peers import PeersConfig, split_address
from skippipe.schedule import Schedule
from skippipe.transport.addresses import Address, family_of

if TYPE_CHECKING:
    from skippipe.transport.membership import Listeners
    from skippipe.transport.probe import Probe

WAIT_SECONDS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A configuration, and what run.sh would be given besides."""
    add_setting_arguments(parser)
    parser.add_argument(
        "--nodes", nargs=2, metavar=("FIRST", "LAST"), help="nodes of this machine, as for run.sh; by default all"
    )
    parser.add_argument(
        "--wait", default=str(WAIT_SECONDS), metavar="SECONDS", help="most time to look for others (%(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Look, print the table; 2 if something would stop the run."""
    config, schedule, setting = chosen(arguments)
    first, last = (whole_number(text, "--nodes", 0) for text in arguments.nodes or ("0", str(schedule.nodes)))
    if not first < last <= schedule.nodes:
        raise UserError(f"--nodes: FIRST {first} must be below LAST {last}, and that at most {schedule.nodes}")
    wait_s = whole_number(arguments.wait, "--wait", 1)
    findings = [*look_here(config, schedule, setting, range(first, last))]
    findings += look_around(config, schedule, setting, range(first, last), wait_s)
    print(table(findings))
    return 2 if any(finding.verdict is Verdict.STOP for finding in findings) else 0


def look_here(config: RunConfig, schedule: Schedule, setting: str, local: range) -> list[Finding]:
    """What concerns this machine alone, but for its ports, address and secret."""
    from skippipe.runtime.needs import needs

    every = needs(config, schedule, setting, vocabulary_of(config.data))
    of_device = look_at_device(config)
    is_usable = of_device.verdict is Verdict.FINE
    return [
        look_at_versions(versions()),
        look_at_fields(config, schedule, setting, local),
        look_at_text(config.data),
        look_at_name(config, local),
        look_at_disk(config, schedule, setting, local, every),
        of_device,
        *([look_at_memory(config, local, every)] if is_usable else []),
    ]


def look_around(config: RunConfig, schedule: Schedule, setting: str, local: range, wait_s: int) -> list[Finding]:
    """Ports, address, secret, and the ways to other machines."""
    # Imported here: errors in arguments should not wait for torch.
    from skippipe.cli.ways import judge, told
    from skippipe.runtime.equal import common_fields
    from skippipe.transport.run_identity import RunIdentity

    peers, is_alone = config.peers, len(local) == schedule.nodes
    try:
        public, targets = addresses(peers)
    except UserError as error:
        return [Finding("address", Verdict.STOP, str(error))]
    secret, of_secret = look_at_secret(peers, is_alone)
    listeners, of_ports = bind(peers, local, public)
    findings = [of_ports, look_at_address(peers, is_alone, public), of_secret]
    try:
        if is_alone:
            return [*findings, Finding("peers", Verdict.FINE, "none: all nodes are here")]
        if not listeners or (secret is None and peers.authenticate):
            return [*findings, Finding("peers", Verdict.NOTE, "not looked for: that needs a secret and a port")]
        identity = RunIdentity(common_fields(schedule, setting, config))
        probe = make_probe(peers, listeners, targets, secret, told(identity, versions()), schedule.nodes)
        print(f"looking for other machines, for {wait_s} s at most", file=sys.stderr)
        asyncio.run(probe.run(wait_s))
        return [*findings, *judge(probe, identity, versions(), wait_s)]
    finally:
        for own in listeners.values():
            own.close()


def addresses(peers: PeersConfig) -> tuple[Address | None, list[Address]]:
    """Where others reach node 0 of this machine if that is advertised, and the bootstrap; UserError if one is none."""
    from skippipe.runtime.endpoint import resolved

    family = family_of(peers.host)
    public = resolved(*peers.split_advertise(), "peers.advertise", family) if peers.advertise else None
    return public, [
        resolved(*split_address(address, "peers.bootstrap"), "peers.bootstrap", family) for address in peers.bootstrap
    ]


def make_probe(
    peers: PeersConfig,
    listeners: dict[int, Listeners],
    targets: list[Address],
    secret: bytes | None,
    about: dict[str, str],
    nodes: int,
) -> Probe:
    """What looks for the others of a run of so many nodes."""
    from skippipe.transport.probe import Probe

    def node_at(address: Address) -> int | None:
        node = address[1] - peers.first_port
        return node if 0 <= node < nodes else None

    return Probe(listeners, targets, secret, about, node_at, nodes)


def table(findings: list[Finding]) -> str:
    """A line a finding."""
    widths = [
        max(len(text) for text in column) for column in zip(*((f.what, f.verdict.value) for f in findings), strict=True)
    ]
    return "\n".join(
        f"{finding.what:{widths[0]}}  {finding.verdict.value:{widths[1]}}  {finding.text}" for finding in findings
    )
