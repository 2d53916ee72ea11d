"""Where a machine's nodes listen, where others reach them, and how they find each other."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from skippipe.errors import UserError, shown
from skippipe.fields import require_positive

MOST_PORT = 65535


@dataclass(frozen=True)
class PeersConfig:
    """Where the nodes listen and how they find each other."""

    host: str = "127.0.0.1"
    """IPv4 or IPv6 address that this machine's nodes listen on and, without `advertise`, are reached at. 0.0.0.0 and ::
    are all of the machine's."""
    advertise: str | None = None
    """Address "host" or "host:port" at which other machines reach this one, if a router forwards ports to it or `host`
    is all addresses: node i is reached at port + i, by default first_port + i (UDP and TCP)."""
    first_port: int = 0
    """Node i listens on first_port + i (UDP and TCP); 0 lets the launcher choose free ports (one machine only)."""
    bootstrap: tuple[str, ...] = ()
    """Addresses "host:port" of nodes that every node introduces itself to; empty: this machine's first nodes. A host
    is an address of the same kind as `host`, IPv6 in brackets, or a name that resolves to one."""
    secret_file: str | None = None
    """File with the cluster's secret, the same on every machine; also taken from SKIPPIPE_SECRET. A run whose nodes
    are all on loopback makes its own."""
    authenticate: bool = True
    """Off: anyone who reaches the ports may talk (for benchmarks on a closed network)."""
    connect_seconds: float = 60.0
    """How long a node looks for a peer and tries to reach it before it gives up."""
    silence_seconds: float = 6.0
    """How long a peer may be silent, or a link broken, before the others go on without it."""
    restart: int = 3
    """How often a node whose process dies in training is started again, to join those that go on; 0: never."""
    replan_seconds: float = 10.0
    """How long a better plan is searched for those who go on without a node, beside the training; 0: not at all."""

    def __post_init__(self) -> None:
        require_positive(self, "connect_seconds", "silence_seconds")
        if self.restart < 0:
            raise UserError(f"restart must be 0 or more, not {self.restart}")
        if self.replan_seconds < 0:
            raise UserError(f"replan_seconds must be 0 or more, not {self.replan_seconds}")
        if not 0 <= self.first_port <= 65000:
            raise UserError(f"first_port must lie between 0 and 65000, not {self.first_port}")
        if not is_address(self.host):
            raise UserError(f"host must be an IPv4 or IPv6 address of this machine, not {shown(self.host)}")
        # Frozen: others compare it with what sockets show.
        object.__setattr__(self, "host", usual_form(self.host, "host"))
        for address in self.bootstrap:
            split_address(address, "bootstrap")
        if self.advertise is not None:
            if not self.first_port:
                raise UserError("advertise needs first_port: others must know which ports to connect to")
            self.split_advertise()

    def split_advertise(self) -> tuple[str, int]:
        """Host of `advertise` and the port of node 0 there; UserError if it is no address."""
        assert self.advertise is not None
        bare = self.advertise.removeprefix("[").removesuffix("]")
        if bare and (":" not in bare or (bare.count(":") > 1 and "]" not in bare)):
            return usual_form(bare, "advertise"), self.first_port
        return split_address(self.advertise, "advertise")

    @property
    def for_this_machine_only(self) -> bool:
        """Whether nobody else can reach the nodes."""
        return self.advertise is None and ipaddress.ip_address(self.host).is_loopback


def check_reachable(peers: PeersConfig, nodes: int, local: range) -> None:
    """Nodes that run on other machines must be able to find those of this one; UserError names what is missing."""
    if peers.first_port and peers.first_port + local.stop - 1 > MOST_PORT:
        raise UserError(
            f"peers.first_port: {peers.first_port} leaves no port for node {local.stop - 1}; use a lower one"
        )
    if peers.advertise is not None and peers.split_advertise()[1] + local.stop - 1 > MOST_PORT:
        raise UserError(f"peers.advertise: {peers.advertise} leaves no port for node {local.stop - 1}; use a lower one")
    if len(local) == nodes:
        return
    if peers.advertise is None and ipaddress.ip_address(peers.host).is_unspecified:
        raise UserError(f"peers.host {peers.host} is no address that other machines can reach; set peers.advertise too")
    missing = [
        name
        for name, given in (
            ("first_port", peers.first_port > 0),
            ("bootstrap", bool(peers.bootstrap)),
        )
        if not given
    ]
    if missing:
        raise UserError(
            f"only nodes {local.start} to {local.stop - 1} of {nodes} start here; for the others to find them"
            f" set {', '.join('peers.' + name for name in missing)} (docs/machines.md)"
        )


def split_address(address: str, field: str) -> tuple[str, int]:
    """Host and port of "host:port", where an IPv6 host has brackets; UserError names the field."""
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) <= MOST_PORT:
        raise UserError(f'{field} needs an address like "10.0.0.1:4000" or "[fd00::1]:4000", not {shown(address)}')
    return usual_form(host, field), int(port)


def is_address(host: str) -> bool:
    """Whether a host is an address, rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def usual_form(host: str, field: str) -> str:
    """A host, if it is an address as sockets show it; UserError names the field for one that others can't use."""
    if not is_address(host):
        return host
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise UserError(f"{field}: {shown(host)} means something on this machine alone; use an address without a %")
        if address.ipv4_mapped is not None:
            raise UserError(f"{field}: {host} is an IPv4 address; write {address.ipv4_mapped}")
    return str(address)
