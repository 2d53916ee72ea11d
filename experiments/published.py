"""What others have published on training while nodes fail: the figure, what it measures, and where it stands."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """A row of the table."""

    system: str
    figure: str
    measures: str
    on_failure: str
    """What becomes of the iteration in which a node fails."""
    source: str


HEADER = ("system", "published", "what it measures", "the iteration of a failure", "source")
PUBLISHED = (
    Published(
        "torchft",
        "2,000 failures, one about every 15 s, without checkpoints (its loss curve shows 1,200): the loss falls on",
        "that a LLaMA on L40S GPUs, data-parallel over replica groups, keeps training; no time against undisturbed",
        "what the failed replica group computed is left out of the step",
        "PyTorch's blog, June 2025: Fault tolerant Llama training with 2000 synthetic failures every ~15 seconds and no"
        " checkpoints on Crusoe L40S",
    ),
    Published(
        "torchft, by a competitor",
        "3,000 steps in 930 min; restarts from checkpoints 818 min, live migration to spares 405 min",
        "Llama 4 Scout (109B) on 64 H200 GPUs, a failure every 45 to 75 min, a checkpoint every 100 steps",
        "as above; migration goes on from the same step",
        "Clockwork's blog: Keeping distributed training running through failures",
    ),
    Published(
        "ElasWave",
        "communicator changed in under 1 s; throughput 1.35 of ReCycle's, 1.60 of torchft's",
        "96 NPUs in one cluster, after nodes are taken away; the first figure is of the communicator alone",
        "resharded, and rebuilt from each step's snapshots in memory",
        "arXiv 2510.00606",
    ),
    Published(
        "CheckFree",
        "1.5 times as fast as checkpoints, CheckFree+ 1.7 times, if stages fail with 10% an hour (1.5 and 1.6 with 5%);"
        " with 5% 12% less time than redundant computation",
        "time until a LLaMA of 500M parameters has a validation loss of 2.85: iterations of a training with simulated"
        " failures, times seconds an iteration over simulated links of 20 nodes; a checkpoint every 100 iterations",
        "lost; the stage is made from its neighbours, so weights are others than undisturbed",
        "arXiv 2506.15461, table 2: 622 h of checkpoints at 10% against 406 h and 368 h; Gensyn's article says up to"
        " 1.6 times, at no named rate",
    ),
    Published(
        "GWTF",
        "training time down by up to 45%",
        "against earlier systems, on nodes in 10 places that come and go, GPT-like and LLaMA-like models",
        "microbatches are routed around the lost relay",
        "arXiv 2509.21221",
    ),
)
"""As their papers and articles say. Other work, sizes and rates than ours: nothing here compares by division."""
