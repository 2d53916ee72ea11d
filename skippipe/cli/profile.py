"""Measure links, tasks and all-reduce between nodes over the real stack; write a network file for create_schedule.py.

Run it on each machine with its own range of nodes, as run.sh; each of them writes the whole file.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from skippipe.cli.launch import launch
from skippipe.cli.prepare import config_from_arguments, whole_number
from skippipe.cli.vocabulary import vocabulary_of
from skippipe.errors import UserError
from skippipe.peers import check_reachable
from skippipe.runtime.events import ComputeMeasured, Event, LinkMeasured, MeasurementDone, SyncMeasured
from skippipe.schedule.costs import Rates

if TYPE_CHECKING:
    from skippipe.runtime.endpoint import Endpoint
    from skippipe.runtime.launcher import Launcher
    from skippipe.runtime.processes import NodeFailedError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The nodes, then a configuration."""
    parser.add_argument("first", metavar="FIRST", help="first node to start here")
    parser.add_argument("last", metavar="LAST", help="one past the last node to start here")
    parser.add_argument("nodes", metavar="NODES", help="nodes on all machines together")
    parser.add_argument("samples", metavar="SAMPLES", help="sequences in a microbatch")
    parser.add_argument("overrides", nargs="*", default=[], metavar="[CONFIG] key=value", help="as for run.sh")
    parser.add_argument(
        "--replicas", default="2", metavar="COUNT", help="nodes of a stage, whose all-reduce is measured (%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("network.yaml"), help="network file to write (%(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Start the nodes, collect what they measure, write the file."""
    numbers = {name: whole_number(getattr(arguments, name), name.upper(), 0) for name in ("first", "last", "nodes")}
    first, last, nodes = numbers.values()
    samples = whole_number(arguments.samples, "SAMPLES", 1)
    if not first < last <= nodes or nodes < 2:
        raise UserError(f"FIRST {first}, LAST {last} and NODES {nodes} must satisfy FIRST < LAST <= NODES, NODES >= 2")
    replicas = whole_number(arguments.replicas, "--replicas", 2)
    if replicas > nodes:
        raise UserError(f"--replicas {replicas} are more than the {nodes} nodes")
    config = config_from_arguments(arguments.overrides)
    local = range(first, last)
    check_reachable(config.peers, nodes, local)
    if not arguments.out.parent.is_dir():
        raise UserError(f"--out: the folder {arguments.out.parent} does not exist")
    # Imported here: errors in arguments should not wait for torch.
    from skippipe.runtime.equal import profile_fields
    from skippipe.runtime.profiler import ProfileConfig, run_profile

    vocabulary = vocabulary_of(config.data)
    computing = config.precision, config.recompute, config.compile, config.threads
    asked = ProfileConfig(config.model, vocabulary, samples, replicas, config.device, *computing)
    # What machines may differ in.
    alike = replace(asked, device="", recompute=False, compiled=False, threads=None)
    measured, fields = Measured(), profile_fields(alike, nodes)

    def run_node(endpoint: Endpoint) -> None:
        run_profile(endpoint, asked)

    def follow(launcher: Launcher) -> int:
        # A pair is reported by both of its nodes, a node's compute once.
        watch_profile(launcher, measured, total=len(local) * nodes)
        arguments.out.write_text(network_text(arguments.out.stem, measured))
        print(summary(measured, arguments.out))
        return 0

    def explain(error: NodeFailedError) -> str:
        return f"{error}; the other nodes were stopped\n{error.last_lines()}"

    with tempfile.TemporaryDirectory() as folder:
        return launch(config.peers, nodes, local, Path(folder), fields, run_node, follow, explain)


@dataclass
class Measured:
    """What the nodes have measured."""

    links: list[LinkMeasured] = field(default_factory=list)
    compute: list[ComputeMeasured] = field(default_factory=list)
    syncs: list[SyncMeasured] = field(default_factory=list)

    def rates(self) -> Rates:
        """What holds for all nodes alike: medians; backward and loss over forward of all nodes together."""
        forward_s = sum(entry.forward_s for entry in self.compute)
        return Rates(
            hop_fixed_s=self.links[0].hop_fixed_s,
            task_gap_s=statistics.median(entry.gap_s for entry in self.compute),
            backward_factor=sum(entry.backward_s for entry in self.compute) / forward_s,
            loss_factor=sum(entry.loss_s for entry in self.compute) / forward_s,
            sync_bytes_per_parameter=statistics.median(sync.bytes_per_parameter for sync in self.syncs),
        )


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
                case SyncMeasured():
                    measured.syncs.append(event)
                case _:
                    raise AssertionError(f"{event} is no event of a profile")

        launcher.watch(on_event)


def network_text(name: str, measured: Measured) -> str:
    """The network file: each node a location of its own."""
    names = ", ".join(f"node-{entry.node}" for entry in measured.compute)
    rates = measured.rates()
    rows = [
        f"  - [node-{link.first}, node-{link.second}, {link.latency_ms:.4f}, {link.bandwidth_gib_s:.6f}]"
        for link in sorted(measured.links, key=lambda link: (link.first, link.second))
    ]
    return "\n".join(
        [
            "# Measured by skippipe profile over the real stack. latency_ms: one way; bandwidth: GiB/s.",
            f"name: {name}",
            "same_location: {latency_ms: 0.1, bandwidth_gib_s: 2.0}",
            f"locations: [{names}]",
            "compute_seconds_per_sample_layer:",
            *(f"  node-{entry.node}: {entry.forward_s:.9f}" for entry in measured.compute),
            "loss_seconds_per_sample:",
            *(f"  node-{entry.node}: {entry.loss_s:.9f}" for entry in measured.compute),
            f"hop_fixed_s: {rates.hop_fixed_s:.9f}",
            f"task_gap_s: {rates.task_gap_s:.9f}",
            f"backward_factor: {rates.backward_factor:.6f}",
            f"sync_bytes_per_parameter: {rates.sync_bytes_per_parameter:.6f}",
            # Each node has one connection to each other one, which carries one message after the other.
            "queueing: link",
            "links:",
            *rows,
            "",
        ]
    )


def summary(measured: Measured, out: Path) -> str:
    """What was measured, in a few lines."""

    def spread(values: list[float], unit: str) -> str:
        return f"{min(values):.3g} to {max(values):.3g} {unit}, median {statistics.median(values):.3g}"

    return "\n".join(
        [
            f"latency        {spread([link.latency_ms for link in measured.links], 'ms')}",
            f"bandwidth      {spread([link.bandwidth_gib_s for link in measured.links], 'GiB/s')}",
            f"rest of a hop  {1000 * measured.rates().hop_fixed_s:.3g} ms",
            f"forward        {spread([1000 * entry.forward_s for entry in measured.compute], 'ms a sample and layer')}",
            f"backward       {measured.rates().backward_factor:.2f} times forward",
            f"loss           {spread([1000 * entry.loss_s for entry in measured.compute], 'ms a sample')}",
            f"between tasks  {spread([1000 * entry.gap_s for entry in measured.compute], 'ms')}",
            f"all-reduce     {spread([sync.bytes_per_parameter for sync in measured.syncs], 'bytes a parameter')}",
            f"written to     {out}; search with: python create_schedule.py --network {out}",
        ]
    )
