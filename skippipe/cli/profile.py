"""Measure links and compute between nodes over the real stack and write a network file for create_schedule.py.

Run it on each machine with its own range of nodes, as run.sh; each of them writes the whole file.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from skippipe.cli.launch import launch
from skippipe.cli.prepare import config_from_arguments, whole_number
from skippipe.config import check_reachable
from skippipe.errors import UserError
from skippipe.runtime.events import ComputeMeasured, Event, LinkMeasured, MeasurementDone

if TYPE_CHECKING:
    from skippipe.runtime.endpoint import Endpoint
    from skippipe.runtime.launcher import Launcher, NodeFailedError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The nodes, then a configuration."""
    parser.add_argument("first", metavar="FIRST", help="first node to start here")
    parser.add_argument("last", metavar="LAST", help="one past the last node to start here")
    parser.add_argument("nodes", metavar="NODES", help="nodes on all machines together")
    parser.add_argument("samples", metavar="SAMPLES", help="sequences in a microbatch, for the compute")
    parser.add_argument("overrides", nargs="*", metavar="[CONFIG] key=value", help="as for run.sh")
    parser.add_argument("--out", type=Path, default=Path("network.yaml"), help="network file to write (%(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Start the nodes, collect what they measure, write the file."""
    numbers = {name: whole_number(getattr(arguments, name), name.upper(), 0) for name in ("first", "last", "nodes")}
    first, last, nodes = numbers.values()
    samples = whole_number(arguments.samples, "SAMPLES", 1)
    if not first < last <= nodes or nodes < 2:
        raise UserError(f"FIRST {first}, LAST {last} and NODES {nodes} must satisfy FIRST < LAST <= NODES, NODES >= 2")
    config = config_from_arguments(arguments.overrides)
    local = range(first, last)
    check_reachable(config.peers, nodes, local)
    if not arguments.out.parent.is_dir():
        raise UserError(f"--out: the folder {arguments.out.parent} does not exist")
    # Imported here: errors in arguments should not wait for torch.
    from skippipe.runtime.profiler import run_profile

    measured = Measured()

    def run_node(endpoint: Endpoint) -> None:
        run_profile(endpoint, config.model, samples, config.device)

    def follow(launcher: Launcher) -> int:
        # A pair is reported by both of its nodes, a node's compute once.
        watch_profile(launcher, measured, total=len(local) * nodes)
        arguments.out.write_text(network_text(arguments.out.stem, measured))
        print(summary(measured, arguments.out))
        return 0

    def explain(error: NodeFailedError) -> str:
        return f"{error}; the other nodes were stopped\n{error.last_lines()}"

    with tempfile.TemporaryDirectory() as folder:
        return launch(config.peers, nodes, local, Path(folder), run_node, follow, explain)


@dataclass
class Measured:
    """What the nodes have measured."""

    links: list[LinkMeasured] = field(default_factory=list)
    compute: list[ComputeMeasured] = field(default_factory=list)


def watch_profile(launcher: Launcher, measured: Measured, total: int) -> None:
    """Collect what the nodes measure, with a bar of `total` measurements, until all have ended."""
    from tqdm import tqdm

    tqdm.monitor_interval = 0
    with tqdm(total=total, unit="measurement", desc="profiling") as bar:

        def on_event(event: Event) -> None:
            match event:
                case MeasurementDone():
                    bar.update(1)
                case LinkMeasured():
                    measured.links.append(event)
                case ComputeMeasured():
                    measured.compute.append(event)
                case _:
                    raise AssertionError(f"{event} is no event of a profile")

        launcher.watch(on_event)


def network_text(name: str, measured: Measured) -> str:
    """The network file: each node a location of its own."""
    names = ", ".join(f"node-{entry.node}" for entry in measured.compute)
    rows = [
        f"  - [node-{link.first}, node-{link.second}, {link.latency_ms:.4f}, {link.bandwidth_gib_s:.6f}]"
        for link in sorted(measured.links, key=lambda link: (link.first, link.second))
    ]
    return "\n".join(
        [
            "# Measured by python -m skippipe profile. latency_ms: one way; bandwidth: GiB/s, over the real stack.",
            f"name: {name}",
            "same_location: {latency_ms: 0.1, bandwidth_gib_s: 2.0}",
            f"locations: [{names}]",
            "compute_seconds_per_sample_layer:",
            *(f"  node-{entry.node}: {entry.forward_s:.6f}" for entry in measured.compute),
            "links:",
            *rows,
            "",
        ]
    )


def summary(measured: Measured, out: Path) -> str:
    """What was measured, in a few lines."""

    def spread(values: list[float], unit: str) -> str:
        return f"{min(values):.3g} to {max(values):.3g} {unit}, median {statistics.median(values):.3g}"

    ratio = statistics.median(entry.backward_s / entry.forward_s for entry in measured.compute)
    forward_ms = [1000 * entry.forward_s for entry in measured.compute]
    return "\n".join(
        [
            f"latency        {spread([link.latency_ms for link in measured.links], 'ms')}",
            f"bandwidth      {spread([link.bandwidth_gib_s for link in measured.links], 'GiB/s')}",
            f"forward        {spread(forward_ms, 'ms a sample and layer')}",
            f"backward       {ratio:.2f} times forward (the cost model takes 1.5)",
            f"written to     {out}; search with: python create_schedule.py --network {out}",
        ]
    )
