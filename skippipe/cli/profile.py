"""Measure links and compute between nodes over the real stack and write a network file for create_schedule.py.

Run it on each machine with its own range of nodes, as run.sh; each of them writes the whole file.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from skippipe.cli.run import DEFAULT_CONFIG, whole
from skippipe.config import RunConfig, check_reachable
from skippipe.errors import UserError
from skippipe.fields import load_config


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
    first, last, nodes = (whole(getattr(arguments, name), name.upper(), 0) for name in ("first", "last", "nodes"))
    samples = whole(arguments.samples, "SAMPLES", 1)
    if not first < last <= nodes or nodes < 2:
        raise UserError(f"FIRST {first}, LAST {last} and NODES {nodes} must satisfy FIRST < LAST <= NODES, NODES >= 2")
    overrides = list(arguments.overrides)
    path = Path(overrides.pop(0)) if overrides and "=" not in overrides[0] else DEFAULT_CONFIG
    config = load_config(RunConfig, path, overrides)
    local = range(first, last)
    check_reachable(config.peers, nodes, local)
    if not arguments.out.parent.is_dir():
        raise UserError(f"--out: the folder {arguments.out.parent} does not exist")
    # Imported here: the argument errors above should not wait for torch.
    from tqdm import tqdm

    from skippipe.runtime.endpoint import Endpoint, open_endpoints
    from skippipe.runtime.launcher import Launcher, NodeFailedError, Stopped, stop_on_signals
    from skippipe.runtime.profiler import run_profile

    def run_node(endpoint: Endpoint) -> None:
        run_profile(endpoint, config.model, samples, config.device)

    measured: dict[str, list[dict[str, Any]]] = {"link": [], "compute": []}
    with tempfile.TemporaryDirectory() as folder:
        launcher = Launcher(*open_endpoints(config.peers, nodes, local, Path(folder)), run_node)
        stop_on_signals()
        # A pair is reported by both of its nodes, a node's compute once.
        total = sum(1 for i in local for j in range(nodes))
        tqdm.monitor_interval = 0
        try:
            launcher.start()
            with tqdm(total=total, unit="measurement", desc="profiling") as bar:

                def on_event(event: dict[str, Any]) -> None:
                    kind = event.pop("event")
                    if kind == "measured":
                        bar.update(1)
                    else:
                        measured[kind].append(event)

                launcher.watch(on_event)
        except NodeFailedError as error:
            launcher.stop()
            print(f"\nerror: {error}; the other nodes were stopped\n{error.last_lines()}", file=sys.stderr)
            return 1
        except Stopped as stopped:
            print(f"\nstopped by {stopped}; every node was stopped", file=sys.stderr)
            return 128 + stopped.number
        finally:
            launcher.stop()
    links, compute = measured["link"], measured["compute"]
    arguments.out.write_text(network_text(arguments.out.stem, links, compute))
    print(summary(links, compute, arguments.out))
    return 0


def network_text(name: str, links: list[dict[str, Any]], compute: list[dict[str, Any]]) -> str:
    """The network file: each node a location of its own."""
    names = ", ".join(f"node-{entry['node']}" for entry in compute)
    rows = [
        f"  - [node-{entry['nodes'][0]}, node-{entry['nodes'][1]},"
        f" {entry['latency_ms']:.4f}, {entry['bandwidth_gib_s']:.6f}]"
        for entry in sorted(links, key=lambda entry: entry["nodes"])
    ]
    return "\n".join(
        [
            "# Measured by python -m skippipe profile. latency_ms: one way; bandwidth: GiB/s, over the real stack.",
            f"name: {name}",
            "same_location: {latency_ms: 0.1, bandwidth_gib_s: 2.0}",
            f"locations: [{names}]",
            "compute_seconds_per_sample_layer:",
            *(f"  node-{entry['node']}: {entry['forward_s']:.6f}" for entry in compute),
            "links:",
            *rows,
            "",
        ]
    )


def summary(links: list[dict[str, Any]], compute: list[dict[str, Any]], out: Path) -> str:
    """What was measured, in a few lines."""

    def spread(values: list[float], unit: str) -> str:
        return f"{min(values):.3g} to {max(values):.3g} {unit}, median {statistics.median(values):.3g}"

    ratio = statistics.median(figures["backward_s"] / figures["forward_s"] for figures in compute)
    forward_ms = [1000 * figures["forward_s"] for figures in compute]
    return "\n".join(
        [
            f"latency        {spread([figures['latency_ms'] for figures in links], 'ms')}",
            f"bandwidth      {spread([figures['bandwidth_gib_s'] for figures in links], 'GiB/s')}",
            f"forward        {spread(forward_ms, 'ms a sample and layer')}",
            f"backward       {ratio:.2f} times forward (the cost model takes 1.5)",
            f"written to     {out}; search with: python create_schedule.py --network {out}",
        ]
    )
