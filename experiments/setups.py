"""The setups whose iteration time is compared: the paper's five, other skip ratios, one cluster and five."""

from __future__ import annotations

from dataclasses import dataclass

PAPER = "configs/paper/search"
MEASURED_HOP_FIXED_S = 0.00135
"""What 8 MiB took between two processes of one machine beside latency and bytes, without a GPU; the original's 0.35 s
have copies to and from GPUs in them (benchmarks/results/real_links.md)."""


@dataclass(frozen=True)
class Setup:
    """One row: what is searched, and what the paper reports for its four settings."""

    label: str
    flags: tuple[str, ...]
    paper: tuple[float | None, ...] = (None, None, None, None)
    """Seconds of an iteration of DT-FM*, DT-FM-skip, SkipPipe without TC2 and SkipPipe, read off its figures."""


def from_file(
    label: str, name: str, *paper: float | None, subset: str | None = None, hop_fixed_s: float | None = None
) -> Setup:
    """A setup of configs/paper, on all locations of its network or on a subset, with the network's hops or others."""
    flags = ("--config", f"{PAPER}-{name}.yaml", *(("--subset", subset) if subset else ()))
    if hop_fixed_s is not None:
        flags = (*flags, "--hop-fixed-s", str(hop_fixed_s))
    return Setup(label, flags, paper or (None,) * 4)


SETUPS = (
    from_file("18 nodes, 25% skip, 4k tokens", "18-nodes-4k", 29.7, 16.9, 16.7, 15.4),
    from_file("18 nodes, 25% skip, 8k tokens", "18-nodes-8k", 45.4, 34.4, 33.1, 25.6),
    from_file("18 nodes, 25% skip, 16k tokens", "18-nodes-16k", 91.8, 65.6, 63.1, 55.4),
    from_file("20 nodes, 12 locations, 33% skip", "20-nodes", 141.7, 71.7, 59.4, 52.6),
    from_file("42 nodes, 25% skip", "42-nodes", 141.0, 1175.0, None, 108.0),
    # What stands for the paper here is the original's own run of create_schedule.py (27 of 30 microbatches in DT-FM*).
    Setup("20 nodes, the original's defaults", ("--network", "gcp-12-as-published"), (165.4, 300.0, 79.9, 77.7)),
    from_file("15 nodes, 12 locations, 50% skip", "15-nodes-50-percent"),
    from_file("21 nodes, 12 locations, 62.5% skip", "21-nodes-62-percent"),
    from_file("20 nodes, 5 clusters, 33% skip", "20-nodes", subset="5-clusters"),
    from_file("20 nodes, one cluster, 33% skip", "20-nodes", subset="single-cluster"),
    from_file(
        "20 nodes, one cluster, measured hops, 33% skip",
        "20-nodes",
        subset="single-cluster",
        hop_fixed_s=MEASURED_HOP_FIXED_S,
    ),
)
