"""The main job while its network misbehaves but nobody is lost: the weights must be those of the undisturbed job.

    python benchmarks/chaos.py [--iterations 125]          # about a quarter of an hour; --iterations 3 for a first look

Two launchers share the nodes, and the clocks of their "machines" are off by up to an hour each. The link from node
SLOW_FROM to node SLOW_TO carries 1 MB/s, every second a tenth of all connections is cut, and 200 strangers connect, say
nothing, and come again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import whole_runs

from skippipe.__main__ import main as skippipe
from skippipe.report.metrics import read_metrics, read_summary
from skippipe.report.run_folder import log_file
from skippipe.runtime import member
from skippipe.transport.addresses import Address
from skippipe.transport.clocks import IDENTITY_BYTES, Clock
from skippipe.transport.identity import SECRET_VARIABLE
from skippipe.transport.links import Links
from skippipe.transport.streams import PeerStreams

NODES = 20
PORT = 24_000
STRANGERS = 200
STRANGERS_COME_AGAIN_S = 5.0
CUT_EVERY_S, CUT_PART = 1.0, 0.1
SLOW_FROM, SLOW_TO, SLOW_BYTES_A_SECOND = 0, 14, 1e6
"""A link that six microbatches of ca-partial cross in the original's schedule."""
MOST_SKEW_S = 3600.0
SECONDS = 3600.0
"""More than a run may take, whatever is done to it."""
REFERENCE_TIME_SCALE = 0.02
"""The undisturbed job may run faster: its weights do not depend on it."""


class SkewedClock(Clock):
    """The clock of a machine whose wire seconds are off by up to an hour."""

    machine = os.urandom(IDENTITY_BYTES)
    skew = random.SystemRandom().uniform(-MOST_SKEW_S, MOST_SKEW_S)

    def __init__(self) -> None:
        super().__init__()
        self.identity = self.machine

    def suspended(self) -> float:
        """What lies between the monotonic and the wire's seconds."""
        return super().suspended() + self.skew


class SlowRelay:
    """Passes what it is sent on, at SLOW_BYTES_A_SECOND."""

    def __init__(self, target: Address) -> None:
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        """Take connections until the process ends."""
        while True:
            client, _ = self.listener.accept()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            server = socket.create_connection(self.target)
            for source, sink, slow in ((client, server, True), (server, client, False)):
                threading.Thread(target=self.pump, args=(source, sink, slow), daemon=True).start()

    def pump(self, source: socket.socket, sink: socket.socket, slow: bool) -> None:
        """Pass one direction of a connection on."""
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 14):
                if slow:
                    time.sleep(len(data) / SLOW_BYTES_A_SECOND)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def cut_at_random(links: Links, connections: list[socket.socket], cuts: Path) -> None:
    """Every second cut a tenth of a node's outgoing connections, until it ends; the number of cuts goes to a file."""
    generator, count = random.Random(os.getpid()), 0
    while links.network.thread.is_alive():
        time.sleep(CUT_EVERY_S)
        for connection in list(connections):
            if connection.fileno() < 0:
                connections.remove(connection)
            elif generator.random() < CUT_PART:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                count += 1
        # A node that ends meanwhile must not leave half a file.
        beside = cuts.with_name(f"new-{cuts.name}")
        beside.write_text(str(count))
        beside.replace(cuts)


def misbehave(folder: Path) -> None:
    """Patch this process, of which the launcher forks the nodes."""
    start, introduce = Links.start, PeerStreams.introduce
    connections: list[socket.socket] = []

    def start_and_cut(links: Links) -> None:
        start(links)
        if links.node == SLOW_FROM:
            target = ("127.0.0.1", PORT + SLOW_TO)
            relay = SlowRelay(target).listener.getsockname()
            links.streams.way = lambda address: relay if address == target else address
        cuts = folder / f"cuts-{links.node}"
        threading.Thread(target=cut_at_random, args=(links, connections, cuts), daemon=True).start()

    async def introduce_and_remember(streams: PeerStreams, connection: socket.socket, *rest: Any) -> Any:
        connected = await introduce(streams, connection, *rest)
        connections.append(connection)
        return connected

    assert member.Clock is Clock, "the clock is made elsewhere: nothing would be skewed"
    member.Clock = SkewedClock  # type: ignore[misc]
    Links.start, PeerStreams.introduce = start_and_cut, introduce_and_remember  # type: ignore[method-assign]


def strangers(stop: threading.Event) -> None:
    """Hold silent connections to the nodes; those that are closed come again."""
    held: list[socket.socket] = []
    while not stop.is_set():
        for one in held:
            one.close()
        held = []
        for number in range(STRANGERS):
            with contextlib.suppress(OSError):
                held.append(socket.create_connection(("127.0.0.1", PORT + number % NODES), timeout=1))
        stop.wait(STRANGERS_COME_AGAIN_S)
    for one in held:
        one.close()


def weights(folder: Path) -> list[str]:
    """Hash of each node's weights at the end."""
    return [re.findall(r"weights ([0-9a-f]+)", log_file(folder, node).read_text())[-1] for node in range(NODES)]


def run(name: str, iterations: int, time_scale: float, disturbed: bool) -> Path:
    """A run's folder when it has ended well."""
    folder = Path("runs") / f"{name}-{time.strftime('%H%M%S')}"
    fields = [f"iterations={iterations}", f"emulation.time_scale={time_scale}", f"name={folder.name}"]
    if not disturbed:
        whole_runs.finish(whole_runs.start(["0", str(NODES), "ca-partial", "8", *fields]), SECONDS)
        return folder
    fields += [f"peers.first_port={PORT}", f"peers.bootstrap=[127.0.0.1:{PORT}]"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", SECRET_VARIABLE: secrets.token_hex(), "CHAOS": str(folder)}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "--inside", "run", str(first), str(last), "ca-partial", "8", *fields],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for first, last in ((0, NODES // 2), (NODES // 2, NODES))
    ]
    stop = threading.Event()
    threading.Thread(target=strangers, args=(stop,), daemon=True).start()
    try:
        for process in processes:
            whole_runs.finish(process, SECONDS)
    finally:
        stop.set()
        for process in processes:
            # With a launcher the kernel ends its nodes.
            process.kill()
    return folder


def main() -> None:
    """Run both and write a table."""
    if sys.argv[1:2] == ["--inside"]:
        misbehave(Path(os.environ["CHAOS"]))
        sys.exit(skippipe(sys.argv[2:]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=125)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/chaos.md"), help="results file")
    arguments = parser.parse_args()
    quiet = run("quiet", arguments.iterations, REFERENCE_TIME_SCALE, disturbed=False)
    began = time.monotonic()
    loud = run("chaos", arguments.iterations, 0.1, disturbed=True)
    seconds = time.monotonic() - began
    cuts = sum(int(path.read_text()) for path in loud.glob("cuts-*"))
    losses = [[line.loss for line in read_metrics(folder)] for folder in (quiet, loud)]
    equal = [
        "the same" if ours == theirs else "DIFFERENT" for ours, theirs in ((weights(quiet), weights(loud)), losses)
    ]
    summary = read_summary(loud)
    command = f"python benchmarks/chaos.py --iterations {arguments.iterations}"
    lines = [
        *whole_runs.header("The main job in chaos, without losses", command),
        f"ca-partial, {NODES} nodes by two launchers, whose clocks are off by up to an hour; a link of 1 MB/s,",
        f"{CUT_PART:.0%} of the connections cut every second, {STRANGERS} silent strangers every "
        f"{STRANGERS_COME_AGAIN_S:g} s.",
        "",
        "| | |",
        "|---|---|",
        f"| iterations | {arguments.iterations}, in {seconds:.0f} s |",
        f"| connections cut | {cuts} |",
        f"| weights of all nodes, to the bit | {equal[0]} |",
        f"| losses, to the bit | {equal[1]}, {losses[1][-1]:.4f} at last |",
        f"| nodes lost | {summary.nodes_lost} |",
        f"| step, median | {summary.measured_step_s:.2f} s, {summary.measured_over_expected:.3f} of the expected |",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    arguments.out.write_text(text)


if __name__ == "__main__":
    main()
