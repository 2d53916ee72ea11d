"""Where a node listens and how it meets the others: what a launcher binds before it forks the node's process."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from skippipe.errors import UserError
from skippipe.peers import PeersConfig, split_address, usual_form
from skippipe.runtime.events import Event, encode
from skippipe.runtime.meeting import Meeting
from skippipe.transport.addresses import Address, Neighbourhood, family_of, shown_address
from skippipe.transport.identity import cluster_secret
from skippipe.transport.inbox import Inbox
from skippipe.transport.invitation import Desk
from skippipe.transport.links import Links
from skippipe.transport.membership import Limits, Listeners, Membership
from skippipe.transport.message import Encoding
from skippipe.transport.run_identity import RUN_ID_BYTES, UNKNOWN, RunIdentity

BOOTSTRAP_NODES = 3
SLOWEST_TASK_SECONDS = 600.0
"""A node may work on one thing for so long where nobody knows what is expected."""
STOP_SIGNAL = signal.SIGUSR1
"""Asks a node's process to end the iteration, save a checkpoint and leave, together with all others."""


@dataclass(frozen=True)
class Endpoint:
    """One node's sockets and its way to the others."""

    node: int
    nodes: int
    """Number of nodes, on all machines."""
    peers: PeersConfig
    listeners: Listeners
    bootstrap: tuple[Address, ...]
    neighbourhood: Neighbourhood
    """How it reaches the nodes of this machine."""
    secret: bytes | None
    run: RunIdentity
    """What must be equal on all machines."""
    with_first_node: bool
    """Whether node 0 runs on this machine."""
    folder: Path
    pipe: int
    """File descriptor of the launcher's pipe, which takes events."""
    local: range
    """Nodes that were started on this machine."""
    notices: int | None = None
    """File descriptor from which the node's process learns what its launcher knows of failures."""
    birth: int = 0
    """Which of the node's processes this is: later ones than the first of all join a run that goes on."""
    first_birth: int = 0
    """Of the node's first process under this launcher."""
    desk: Desk | None = None
    """If machines are invited: what they are told."""

    @property
    def joins(self) -> bool:
        """Whether the others are in the middle of the run."""
        return self.birth > 0

    @property
    def first_here(self) -> bool:
        """Whether this is the first node of its machine, which reports what concerns all."""
        return self.node == self.local.start

    def report(self, event: Event) -> None:
        """Tell the launcher; a line is short enough for the pipe to keep whole."""
        os.write(self.pipe, encode(event))

    def open_links(
        self,
        inbox: Inbox,
        message_bytes: int,
        encodings: dict[int, Encoding] | None = None,
        work_seconds: float = SLOWEST_TASK_SECONDS,
    ) -> Links:
        """The node's links, started; messages of at most `message_bytes` are accepted.

        A peer whose executor works on one thing for longer than `work_seconds` is given up.
        """
        limits = Limits(message_bytes, self.peers.connect_seconds, self.peers.silence_seconds, work_seconds)
        membership = Membership(self.node, self.nodes, self.secret, self.run)
        links = Links(
            membership,
            self.listeners,
            self.bootstrap,
            limits,
            inbox,
            encodings,
            notices=self.notices,
            neighbourhood=self.neighbourhood,
            joins=self.joins,
            proven=self.birth > self.first_birth,
            desk=self.desk,
        )
        links.start()
        return links


def resolved(host: str, port: int, field: str, family: socket.AddressFamily) -> Address:
    """Address of a host, which may be a name, and port; UserError if the name has no address of this family."""
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        kind = "IPv6" if family == socket.AF_INET6 else "IPv4"
        raise UserError(f"{field}: {host!r} has no {kind} address, which peers.host is ({error})") from None
    # Names may stand for addresses that need a zone, too, which others would not know.
    usable = [str(address[0]) for *_, address in found if not any(address[2:])]
    if not usable:
        raise UserError(f"{field}: {host!r} has no address but in a zone of this machine; give one without")
    return usual_form(usable[0], field), port


@contextlib.contextmanager
def refused_as(field: str, who: str, host: str, port: int) -> Iterator[None]:
    """Turn what binding a socket raises into a UserError that names the field, or the host if it is not here."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise UserError(f"peers.host: {host} is no address of this machine") from None
        raise UserError(
            f"{field}: {who} can't listen on {shown_address((host, port))}"
            f" ({os.strerror(error.errno or 0)}); choose another"
        ) from None


def open_endpoints(
    peers: PeersConfig,
    nodes: int,
    local: range,
    folder: Path,
    fields: dict[str, str],
    first_birth: int = 0,
    meeting: Meeting | None = None,
    desk: Desk | None = None,
) -> tuple[list[Endpoint], int]:
    """Endpoints of this machine's nodes, with their sockets bound, and the reading end of the pipe they report to.

    `fields` must be equal on all machines. Nodes whose `first_birth` is not 0 join a run that goes on. A launcher of
    this machine may have said where the others are, or an invitation under which secret (`meeting`). Each of the nodes
    has a `desk` for machines that are invited. Raises UserError if a port is taken.
    """
    secret = None
    if peers.authenticate:
        given = meeting.secret if meeting is not None else None
        secret = given or cluster_secret(peers.secret_file, peers.for_this_machine_only)
    run = RunIdentity(fields, os.urandom(RUN_ID_BYTES) if 0 in local and not first_birth else UNKNOWN)
    listeners, family = {}, family_of(peers.host)
    bootstrap = [
        resolved(*split_address(address, "peers.bootstrap"), "peers.bootstrap", family) for address in peers.bootstrap
    ]
    public = None
    if peers.advertise is not None:
        public = resolved(*peers.split_advertise(), "peers.advertise", family)
    for node in local:
        port = peers.first_port + node if peers.first_port else 0
        with refused_as("peers.first_port" if port else "peers.host", f"node {node}", peers.host, port):
            listeners[node] = Listeners.bind(peers.host, port, (public[0], public[1] + node) if public else None)
    bootstrap += meeting.addresses if meeting is not None else ()
    bootstrap = bootstrap or [listeners[node].address for node in local[:BOOTSTRAP_NODES]]
    near = {own.address: own.bound for own in listeners.values() if public}
    neighbourhood = Neighbourhood(near, {node: (own.address, own.stream_port) for node, own in listeners.items()})
    reader, writer = os.pipe()
    endpoints = [
        Endpoint(
            node=node,
            nodes=nodes,
            peers=peers,
            listeners=listeners[node],
            bootstrap=tuple(bootstrap),
            neighbourhood=neighbourhood,
            secret=secret,
            run=run,
            with_first_node=0 in local,
            folder=folder,
            pipe=writer,
            local=local,
            birth=first_birth,
            first_birth=first_birth,
            desk=desk,
        )
        for node in local
    ]
    return endpoints, reader
