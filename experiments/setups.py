"""The setups whose iteration time is compared: the paper's five, other skip ratios, one cluster and five."""

from __future__ import annotations

from dataclasses import dataclass

PAPER = "configs/paper/search"
MEASURED_HOP_FIXED_S = 0.00135
"""What 8 MiB took between two processes of one machine beside latency and bytes, without a GPU; the original's 0.35 s
have copies to and from GPUs in them (benchmarks/results/real_links.md)."""
NONE = (None, None, None, None)


@dataclass(frozen=True)
class Setup:
    """One row: what is searched, and what is reported for its four settings."""

    name: str
    """What the command line calls it."""
    label: str
    flags: tuple[str, ...]
    reported: tuple[float | None, ...] = NONE
    """Seconds of an iteration of DT-FM*, DT-FM-skip, SkipPipe without TC2 and SkipPipe (shared/paper.md)."""
    reporter: str = "paper"
    """Who reports it: the paper, in its figures, or a run of the original's code."""
    microbatches: int | None = None
    """How many microbatches DT-FM* has here, if not as many as the other settings."""
    rest_of: str | None = None
    """The setup of which all is shown but DT-FM*."""


def from_file(label: str, name: str, *reported: float | None) -> Setup:
    """A setup of configs/paper, on all locations of its network."""
    return Setup(name, label, ("--config", f"{PAPER}-{name}.yaml"), reported or NONE)


TWENTY = ("--config", f"{PAPER}-20-nodes.yaml", "--subset")
DEFAULTS = ("--network", "gcp-12-as-published")
SETUPS = (
    from_file("18 nodes, 25% skip, 4k tokens", "18-nodes-4k", 29.7, 16.9, 16.7, 15.4),
    from_file("18 nodes, 25% skip, 8k tokens", "18-nodes-8k", 45.4, 34.4, 33.1, 25.6),
    from_file("18 nodes, 25% skip, 16k tokens", "18-nodes-16k", 91.8, 65.6, 63.1, 55.4),
    from_file("20 nodes, 12 locations, 33% skip", "20-nodes", 141.7, 71.7, 59.4, 52.6),
    from_file("42 nodes, 25% skip", "42-nodes", 141.0, 1175.0, None, 108.0),
    Setup(
        "42-nodes-6-samples",
        "42 nodes, 25% skip, 6 samples a microbatch",
        ("--config", f"{PAPER}-42-nodes.yaml", "--samples-per-microbatch", "6"),
        (141.0, 1175.0, None, 108.0),
    ),
    Setup("defaults", "20 nodes, the original's defaults", DEFAULTS),
    # Its random did not finish all microbatches.
    Setup(
        "defaults-27",
        "20 nodes, the original's own run (27 microbatches in DT-FM*)",
        DEFAULTS,
        (165.4, 300.0, 79.9, 77.7),
        "original",
        microbatches=27,
        rest_of="defaults",
    ),
    from_file("15 nodes, 12 locations, 50% skip", "15-nodes-50-percent"),
    from_file("21 nodes, 12 locations, 62.5% skip", "21-nodes-62-percent"),
    Setup("5-clusters", "20 nodes, 5 clusters, 33% skip", (*TWENTY, "5-clusters")),
    Setup("one-cluster", "20 nodes, one cluster, 33% skip", (*TWENTY, "single-cluster")),
    Setup(
        "one-cluster-measured",
        "20 nodes, one cluster, measured hops, 33% skip",
        (*TWENTY, "single-cluster", "--hop-fixed-s", str(MEASURED_HOP_FIXED_S)),
    ),
)
