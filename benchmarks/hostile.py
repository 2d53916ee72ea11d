"""The main job while strangers send 10,000 hostile messages, against the same job undisturbed.

`python benchmarks/hostile.py`: TCP and UDP, random, truncated, oversized and replayed bytes, connections that dawdle.
The losses must be the same to the bit, and the iteration time within a few per cent.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import socket
import subprocess
import threading
import time
from pathlib import Path

import whole_runs

from skippipe.report.metrics import RunSummary, read_metrics, read_summary
from skippipe.transport.handshake import MAGIC, OPENING_BYTES
from skippipe.transport.identity import node_id

MESSAGES = 10_000
NODES = 20
ITERATIONS = 8
PORT = 23_000
SECONDS_OPEN = 5.0


def opening(generator: random.Random) -> bytes:
    """What a stranger says."""
    hello = MAGIC + node_id(generator.randrange(NODES)) + generator.randbytes(OPENING_BYTES - 40)
    choice = generator.randrange(5)
    if choice == 0:
        return generator.randbytes(generator.randrange(2000))
    if choice == 1:
        return hello[: generator.randrange(len(hello))]
    if choice == 2:
        return (2**255).to_bytes(32, "big") + generator.randbytes(100)
    if choice == 3:
        return hello + generator.randbytes(32)
    return hello + bytes(32) + b"\xff" * 64


def attack(stop: threading.Event, seconds: float) -> int:
    """Send MESSAGES messages to random nodes within `seconds`; how many were sent."""
    generator = random.Random(0)
    held: list[tuple[float, socket.socket]] = []
    sent = 0
    began = time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        while sent < MESSAGES and not stop.is_set():
            target = ("127.0.0.1", PORT + generator.randrange(NODES))
            data = opening(generator)
            if sent % 2:
                datagrams.sendto(data[:1400], target)
            else:
                with contextlib.suppress(OSError):
                    connection = socket.create_connection(target, timeout=2)
                    connection.sendall(data)
                    held.append((time.monotonic(), connection))
            sent += 1
            while held and time.monotonic() - held[0][0] > SECONDS_OPEN:
                held.pop(0)[1].close()
            stop.wait(max(0.0, began + seconds * sent / MESSAGES - time.monotonic()))
    for _, connection in held:
        connection.close()
    return sent


def run(name: str, disturbed: bool) -> tuple[RunSummary, list[float], list[float], int]:
    """Summary, losses, memory of the nodes before and after, and how many messages were sent."""
    folder = Path("runs") / f"{name}-{time.strftime('%H%M%S')}"
    fields = [f"name={folder.name}", f"iterations={ITERATIONS}", f"peers.first_port={PORT}"]
    process: subprocess.Popen[str] = whole_runs.start(["0", str(NODES), "ca-partial", "8", *fields])
    whole_runs.wait_for_iteration(process, folder)
    before = sum(whole_runs.proportional_megabytes(folder))
    stop, sent = threading.Event(), [0]
    thread = threading.Thread(target=lambda: sent.__setitem__(0, attack(stop, 3.5 * (ITERATIONS - 3))))
    if disturbed:
        thread.start()
    while len(read_metrics(folder)) < ITERATIONS - 3 and process.poll() is None:
        time.sleep(0.2)
    after = sum(whole_runs.proportional_megabytes(folder))
    stop.set()
    if disturbed:
        thread.join()
    whole_runs.finish(process)
    losses = [line.loss for line in read_metrics(folder)]
    return read_summary(folder), losses, [before, after], sent[0]


def main() -> None:
    """Run both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/hostile.md"), help="results file")
    arguments = parser.parse_args()
    quiet, quiet_losses, quiet_memory, _ = run("quiet", disturbed=False)
    loud, loud_losses, loud_memory, sent = run("hostile", disturbed=True)
    ratio = loud.measured_iteration_s / quiet.measured_iteration_s
    lines = [
        *whole_runs.header("The main job among strangers", "python benchmarks/hostile.py"),
        "| | undisturbed | hostile |",
        "|---|---|---|",
        f"| hostile messages | 0 | {sent} |",
        f"| iteration s | {quiet.measured_iteration_s:.2f} | {loud.measured_iteration_s:.2f} ({ratio:.3f}) |",
        f"| memory of all nodes MB, first and last iteration | {quiet_memory[0]:.0f}, {quiet_memory[1]:.0f} |"
        f" {loud_memory[0]:.0f}, {loud_memory[1]:.0f} |",
        f"| losses | {quiet_losses[-1]:.6f} at last | {'the same' if loud_losses == quiet_losses else 'DIFFERENT'} |",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    arguments.out.write_text(text)


if __name__ == "__main__":
    main()
