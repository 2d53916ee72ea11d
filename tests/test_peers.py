"""Where nodes are reached: what can't work is refused in one line, and addresses are written as sockets show them."""

from __future__ import annotations

import socket

import pytest

from skippipe.config import RunConfig
from skippipe.errors import UserError
from skippipe.fields import build
from skippipe.peers import PeersConfig, check_reachable
from skippipe.runtime.endpoint import resolved

REFUSED = {
    "a zone": ({"host": "fe80::1%eth0"}, "host: 'fe80::1%eth0' means something on this machine alone"),
    "IPv4 as IPv6": ({"host": "::ffff:10.0.0.1"}, "host: ::ffff:10.0.0.1 is an IPv4 address; write 10.0.0.1"),
    "a name": ({"host": "localhost"}, "host must be an IPv4 or IPv6 address of this machine, not 'localhost'"),
    "a zone to meet in": ({"bootstrap": ("[fe80::1%eth0]:4000",)}, "bootstrap: 'fe80::1%eth0' means something on"),
    "IPv4 as IPv6 to meet at": ({"bootstrap": ("[::ffff:10.0.0.1]:4000",)}, "bootstrap: ::ffff:10.0.0.1 is an IPv4"),
    "a zone to be reached in": ({"advertise": "fe80::1%eth0", "first_port": 4000}, "advertise: 'fe80::1%eth0' means"),
    "IPv4 as IPv6 to be reached at": (
        {"advertise": "[::ffff:10.0.0.1]:80", "first_port": 4000},
        "advertise: ::ffff:10.0.0.1 is an IPv4",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_addresses_that_others_can_not_use_are_refused(case: str) -> None:
    fields, line = REFUSED[case]
    with pytest.raises(UserError) as raised:
        PeersConfig(**fields)  # type: ignore[arg-type]
    assert str(raised.value).startswith(line)
    document = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
    with pytest.raises(UserError) as raised:
        build(RunConfig, {"peers": document}, "my.yaml")
    assert str(raised.value).startswith(f"my.yaml: peers.{line}")


def test_addresses_are_kept_as_sockets_show_them() -> None:
    peers = PeersConfig(host="0:0:0:0:0:0:0:1", advertise="FD00:0::1", first_port=4000)
    assert (peers.host, peers.split_advertise()) == ("::1", ("fd00::1", 4000))
    assert resolved("0:0:0:0:0:0:0:1", 4000, "peers.bootstrap", socket.AF_INET6) == ("::1", 4000)
    assert resolved("127.0.0.1", 4000, "peers.bootstrap", socket.AF_INET) == ("127.0.0.1", 4000)


@pytest.mark.parametrize("advertise", ["203.0.113.5:65530", "[fd00::5]:65530"])
def test_every_node_has_a_port_that_others_reach(advertise: str) -> None:
    peers = PeersConfig(advertise=advertise, first_port=4000, bootstrap=("10.0.0.1:4000",))
    check_reachable(peers, 20, range(6))
    with pytest.raises(UserError, match=r"^peers.advertise: .* leaves no port for node 10; use a lower one$"):
        check_reachable(peers, 20, range(5, 11))
    with pytest.raises(UserError, match=r"^peers.first_port: 65000 leaves no port for node 540; use a lower one$"):
        check_reachable(PeersConfig(first_port=65000), 541, range(541))
