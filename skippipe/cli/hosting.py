"""`--host`: what it sets if nothing else is given, and the lines that it prints for other machines."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import secrets
import socket
import struct
from typing import Any

from skippipe.cli.invitation import Invitation
from skippipe.cli.prepare import config_from_arguments
from skippipe.config import RunConfig
from skippipe.errors import UserError
from skippipe.transport.identity import KEY_BYTES, given_secret

FIRST_PORT = 4000
PATIENCE_SECONDS = 600.0
"""How long nodes wait for those of other machines, whose users have to copy a line, and perhaps to install first."""
FAR_AWAY = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses that are only written in documents (RFC 5737, RFC 3849): the way to them is the way to the network."""
GET_ADDRESS = 0x8915
"""SIOCGIFADDR (man 7 netdevice): the IPv4 address of an interface, 20 bytes into the request of 40."""
ADDRESS_PLACE = slice(20, 24)


def host_run(arguments: argparse.Namespace, first: int) -> tuple[RunConfig, Invitation]:
    """The configuration of a run whose node `first` invites other machines, and the invitation."""
    if arguments.evaluate:
        raise UserError("--host: an evaluation invites nobody; leave one of --host and --evaluate out")
    config = config_from_arguments(arguments.overrides, defaults())
    peers = config.peers
    if not peers.authenticate:
        raise UserError("peers.authenticate: --host invites under a secret; leave the field out")
    if not peers.first_port:
        raise UserError("peers.first_port: --host needs ports that others can know; give one or leave the field out")
    host, port = (peers.host, peers.first_port) if peers.advertise is None else peers.split_advertise()
    secret = given_secret(peers.secret_file) or secrets.token_urlsafe(KEY_BYTES).encode()
    invitation = Invitation((host, port + first), secret)
    # Before anything is prepared: it may be too short.
    assert invitation.key
    peers = dataclasses.replace(peers, bootstrap=peers.bootstrap or (invitation.where,))
    return dataclasses.replace(config, peers=peers), invitation


def defaults() -> dict[str, Any]:
    """Fields as --host sets them, if neither a file nor an argument does."""
    peers: dict[str, Any] = {"first_port": FIRST_PORT, "connect_seconds": PATIENCE_SECONDS}
    if (host := outward_address()) is not None:
        peers["host"] = host
    return {"peers": peers}


def outward_address() -> str | None:
    """The address by which this machine reaches the network; without a way out, one of its networks'; else None."""
    for family, address in FAR_AWAY:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            # Sends nothing: it only looks the way up.
            probe.connect((address, FIRST_PORT))
            return str(probe.getsockname()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(probe, GET_ADDRESS, struct.pack("40s", name.encode()))
                found = socket.inet_ntoa(answer[ADDRESS_PLACE])
                if not found.startswith("127."):
                    return found
    return None


def lines(invitation: Invitation, arguments: argparse.Namespace, nodes: int, local: range, patience_s: float) -> str:
    """What to run on other machines, for each range of nodes that is missing here."""
    missing = [part for part in (range(local.start), range(local.stop, nodes)) if part]
    resume = f" --resume {arguments.resume}" if arguments.resume else ""
    told = [
        f"./run.sh {part.start} {part.stop} {arguments.setting} {arguments.samples}{resume} --join {invitation.shown}"
        for part in missing
    ]
    return "\n".join(
        (f"the other nodes, on machines that reach this one, within {patience_s:.0f} s or if one is lost later:", *told)
    )
