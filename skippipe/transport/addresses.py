"""Where nodes are reached: IPv4 and IPv6 addresses with ports, and what a node behind forwarded ports is called."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from deccom.utils.common import byte_reader, byte_writer

from skippipe.transport.message import MalformedMessageError, whole_number

Address = tuple[str, int]
"""An IPv4 or IPv6 address in its usual form, and a port."""
Place = tuple[Address, int]
"""Where a node is reached: the address for datagrams, and the port for streams."""

HOST_BYTES = 16
ADDRESS_BYTES = HOST_BYTES + 2
NUMBER_BYTES = 5
ADDRESS_NUMBERS = (ADDRESS_BYTES + 2) // NUMBER_BYTES
MAPPED = bytes(10) + b"\xff\xff"
"""Before the four bytes of an IPv4 address that is written as an IPv6 one (RFC 4291, section 2.5.5.2)."""
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where a node that listens on all of a machine's addresses is reached from the machine itself."""


def family_of(host: str) -> socket.AddressFamily:
    """The socket family of an address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def shown_address(address: Address) -> str:
    """host:port, with an IPv6 host in brackets."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@lru_cache(1024)
def pack_host(host: str) -> bytes:
    """The 16 bytes of an IPv4 or IPv6 address; ValueError if it is none."""
    parsed = ipaddress.ip_address(host)
    return MAPPED + parsed.packed if parsed.version == 4 else parsed.packed


@lru_cache(1024)
def unpack_host(data: bytes) -> str:
    """The address of 16 bytes, in its usual form."""
    return str(ipaddress.ip_address(data[len(MAPPED) :] if data.startswith(MAPPED) else data))


def pack_address(address: Address) -> bytes:
    """ADDRESS_BYTES bytes."""
    return pack_host(address[0]) + address[1].to_bytes(2, "big")


def unpack_address(data: bytes) -> Address:
    """What pack_address was given."""
    return unpack_host(data[:HOST_BYTES]), int.from_bytes(data[HOST_BYTES:ADDRESS_BYTES], "big")


def address_numbers(address: Address, stream_port: int) -> list[float]:
    """Where a node is reached, as ADDRESS_NUMBERS whole numbers that a double holds."""
    data = pack_address(address) + stream_port.to_bytes(2, "big")
    return [float(int.from_bytes(data[at : at + NUMBER_BYTES], "big")) for at in range(0, len(data), NUMBER_BYTES)]


def address_of_numbers(numbers: Sequence[float]) -> Place:
    """What address_numbers was given; MalformedMessageError if it was nothing."""
    if len(numbers) != ADDRESS_NUMBERS:
        raise MalformedMessageError(f"{len(numbers)} numbers are no address")
    most = (1 << 8 * NUMBER_BYTES) - 1
    data = b"".join(whole_number(number, most).to_bytes(NUMBER_BYTES, "big") for number in numbers)
    return unpack_address(data), int.from_bytes(data[ADDRESS_BYTES:], "big")


def network_of(host: str) -> str:
    """The addresses that whoever has this one is likely to have too: itself, of IPv6 its /64."""
    data = pack_host(host)
    return host if data.startswith(MAPPED) else unpack_host(data[: HOST_BYTES // 2] + bytes(HOST_BYTES // 2))


def let_deccom_write_ipv6() -> None:
    """Let DecCom write the host of a peer in 16 bytes: published, it has four, in which IPv6 finds no place."""

    def write_ip(writer: byte_writer, host: str) -> byte_writer:
        writer.write_raw(pack_host(host))
        return writer

    def read_ip(reader: byte_reader) -> str:
        return unpack_host(bytes(reader.read_next(HOST_BYTES)))

    byte_writer.write_ip, byte_reader.read_ip = write_ip, read_ip


@dataclass(frozen=True)
class Neighbourhood:
    """How nodes of one machine reach one another, also if others know them by other addresses: not every router lets a
    machine reach itself by its public address."""

    near: dict[Address, Address]
    """From the address that all know to the one that is bound."""
    places: dict[int, Place] = field(default_factory=dict)
    """Where all know nodes of this machine to be, which need not be looked for."""

    def way(self, address: Address) -> Address:
        """Where to send what goes to an address."""
        return self.near.get((address[0], address[1]), address)
