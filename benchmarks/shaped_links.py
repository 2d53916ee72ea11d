"""Network namespaces that stand for machines, and links between them that are slowed down (ip netns, tc-tbf)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence

JUMBO_BYTES = 9000
"""Largest packet: all packets are worked off by this machine's cores, which the nodes need for themselves."""
NEEDS = "it makes network namespaces: run it as root, with iproute2 (ip, tc) installed"


def can_make_namespaces() -> bool:
    """Whether this user and machine can."""
    return os.geteuid() == 0 and shutil.which("ip") is not None and shutil.which("tc") is not None


def command(*arguments: str) -> None:
    """Run ip or tc; RuntimeError with what it said if it fails."""
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.strip()}")


def host(node: int) -> str:
    """Address of a node."""
    return f"10.78.0.{node + 1}"


def shape(name: str, device: str, megabits: float) -> None:
    """Slow down what leaves a namespace through a device; the burst is what 4 ms let pass."""
    burst = max(2 * JUMBO_BYTES, int(megabits * 500))
    tbf = ["tbf", "rate", f"{megabits}mbit", "burst", str(burst), "latency", "2s"]
    command("ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", device, "root", *tbf)


def plug_into_switch(names: list[str], switch: str, megabits: Sequence[float]) -> None:
    """A shaped uplink for every node, of so many Mbit/s, into one bridge, which has a namespace of its own."""
    command("ip", "-n", switch, "link", "add", "switch", "type", "bridge")
    command("ip", "-n", switch, "link", "set", "switch", "up")
    for node, name in enumerate(names):
        port = f"p{node}"
        command("ip", "link", "add", "uplink", "netns", name, "type", "veth", "peer", "name", port, "netns", switch)
        command("ip", "-n", name, "address", "add", f"{host(node)}/24", "dev", "uplink")
        command("ip", "-n", name, "link", "set", "uplink", "mtu", str(JUMBO_BYTES), "up")
        command("ip", "-n", switch, "link", "set", port, "mtu", str(JUMBO_BYTES), "master", "switch", "up")
        shape(name, "uplink", megabits[node])
        shape(switch, port, megabits[node])


@contextlib.contextmanager
def namespaces(names: list[str]) -> Iterator[None]:
    """Network namespaces; gone at the end whatever happens, and all that was in them."""
    try:
        for name in names:
            command("ip", "netns", "add", name)
            command("ip", "-n", name, "link", "set", "lo", "up")
        yield
    finally:
        # A second Ctrl-C must not leave some of them behind.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        signal.signal(signal.SIGINT, before)
