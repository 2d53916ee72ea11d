"""What a training run is configured by: typed dataclasses, every cross-check made when one is built."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from skippipe.errors import UserError, shown
from skippipe.fields import require_positive
from skippipe.peers import PeersConfig

CONFIGS = Path(__file__).resolve().parent / "configs"
"""What is shipped: default.yaml, networks, schedules, and the paper's setups."""
MOST_CLIP, MOST_UPDATE, LEAST_EPSILON = 1e15, 1e25, 1e-30
MOST_MODEL = {
    "d_model": 1 << 18,
    "heads": 1 << 14,
    "layers_per_stage": 10_000,
    "context": 1 << 20,
    "feed_forward": 1 << 20,
}
"""Far beyond any LLaMA: a typing error, or a stranger's checkpoint, must not ask for all memory."""
MOST_NAME = 100
Encoding = Literal["fp32", "bf16", "int8"]
"""How the numbers of a message are written; fp32 is exact."""
Precision = Literal["fp32", "bf16"]
"""What a stage computes in."""
SYNC_BLOCK = 256
"""Neighbouring numbers of a gradient that share a scale in an int8 sync: benchmarks/results/compression.md."""


def shipped_file(kind: str, name: str, ending: str) -> Path:
    """Path of a network or schedule: a file of the user's, or for a bare name one of configs/<kind>s.

    UserError for a name that is not shipped.
    """
    if name.endswith(ending) or "/" in name:
        return Path(name)
    path = CONFIGS / f"{kind}s" / f"{name}{ending}"
    if not path.exists():
        known = ", ".join(sorted(entry.stem for entry in path.parent.glob(f"*{ending}")))
        raise UserError(f"{kind} {name!r} is not known; give a {ending} file or one of: {known}")
    return path


@dataclass(frozen=True)
class ModelConfig:
    """The LLaMA that the peers train; with emulation on it may be a small stand-in for the schedule's model."""

    blocks: Literal["transformers", "simplellm"] = "transformers"
    """Whose decoder layers: transformers' LlamaDecoderLayer or simplellm's TransformerBlock (the paper's)."""
    d_model: int = 64
    """Width of the residual stream."""
    heads: int = 4
    """Attention heads; must divide d_model into even head widths."""
    layers_per_stage: int = 1
    """Decoder layers that each stage holds."""
    context: int = 64
    """Tokens in a sequence."""
    feed_forward: int | None = None
    """Hidden width of the feed-forward part; the default is 4 x d_model, as in the paper."""
    init_from: str | None = None
    """A local Hugging Face LLaMA folder to start from, of the same shapes; by default weights are drawn (seed)."""

    def __post_init__(self) -> None:
        require_positive(self, "d_model", "heads", "layers_per_stage", "context")
        for name, most in MOST_MODEL.items():
            if (getattr(self, name) or 0) > most:
                raise UserError(f"{name} must be at most {most}, not {getattr(self, name)}")
        if self.d_model % (2 * self.heads):
            raise UserError(f"d_model must be a multiple of 2 x heads = {2 * self.heads}, not {self.d_model}")
        if self.feed_forward is not None and self.feed_forward < 1:
            raise UserError(f"feed_forward must be positive, not {self.feed_forward}")

    @property
    def hidden_width(self) -> int:
        """Feed-forward width in use."""
        return self.feed_forward or 4 * self.d_model


@dataclass(frozen=True)
class DataConfig:
    """Where the text comes from and how it becomes tokens."""

    source: Literal["stdlib", "files", "hub"] = "stdlib"
    """stdlib: the Python standard library's sources; files: `paths`; hub: the `datasets` name in `hub`, streamed."""
    paths: tuple[str, ...] = ()
    """Text files, folders or glob patterns, for source files."""
    hub: str | None = None
    """For source hub: name of a dataset on the hub, or a folder with its files; its texts are taken in their order."""
    hub_config: str | None = None
    """Configuration of that dataset, if it has several."""
    hub_split: str = "train"
    """Split of that dataset."""
    hub_field: str = "text"
    """Column of that dataset that holds the text."""
    hub_revision: str | None = None
    """Commit, branch or tag of that dataset on the hub; by default the newest commit when the run begins."""
    vocabulary: int = 2048
    """Size of the tokenizer trained on a sample of the text; ignored if `tokenizer` is given."""
    tokenizer: str | None = None
    """To use instead of training one: a sentencepiece .model file, or a folder or a name on the hub with one of
    transformers' fast tokenizers."""
    validation_fraction: float = 0.05
    """Part of the tokens that is held out of training; of a hub dataset of the documents, chosen by their contents."""
    cache: str = "~/.cache/skippipe"
    """Folder for trained tokenizers and token files, keyed by a hash of corpus and settings."""

    def __post_init__(self) -> None:
        require_positive(self, "vocabulary")
        if not 0 < self.validation_fraction < 1:
            raise UserError(f"validation_fraction must lie between 0 and 1, not {self.validation_fraction}")
        if self.source == "files" and not self.paths:
            raise UserError("source files needs paths: a list of text files, folders or patterns")
        if self.source == "hub" and not self.hub:
            raise UserError("source hub needs hub: the name of a dataset")


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up, decay of the rate and clipping by the global norm; defaults are the paper's."""

    learning_rate: float = 3e-4
    """Peak learning rate."""
    warmup_iterations: int = 2
    """The learning rate rises linearly from 0 in iteration 0 to its peak in iteration number `warmup_iterations`."""
    decay: Literal["constant", "cosine"] = "constant"
    """What follows: the peak for ever, or half a cosine down to `final_learning_rate` at the end of the run."""
    final_learning_rate: float = 0.0
    """What the cosine falls to after the last of the run's `iterations`."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.999
    """Decay of the second moment."""
    epsilon: float = 1e-8
    """Added to the denominator of Adam's update."""
    weight_decay: float = 0.0
    """Decoupled weight decay of matrices; norms and the embedding do not decay."""
    clip: float = 1.0
    """Largest global norm of the gradient, over all stages; longer gradients are scaled down to it."""
    dropped_in_a_row: int = 5
    """An iteration in which a number was not finite is dropped; so many of them in a row end the run."""

    def __post_init__(self) -> None:
        require_positive(self, "learning_rate", "epsilon", "clip", "dropped_in_a_row")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} must lie in [0, 1), not {getattr(self, name)}")
        if self.warmup_iterations < 0 or self.weight_decay < 0:
            raise UserError("warmup_iterations and weight_decay can't be negative")
        if not 0 <= self.final_learning_rate <= self.learning_rate:
            raise UserError(
                f"final_learning_rate must lie between 0 and learning_rate = {self.learning_rate:g},"
                f" not {self.final_learning_rate:g}"
            )
        if self.final_learning_rate and self.decay == "constant":
            raise UserError("final_learning_rate needs decay cosine; a constant rate never falls to it")
        if self.epsilon < LEAST_EPSILON:
            raise UserError(f"epsilon must be at least {LEAST_EPSILON:g}, not {self.epsilon:g}: fp32 would make it 0")
        # Within these no sequence of finite gradients can bring weights or moments beyond fp32.
        if self.clip > MOST_CLIP:
            raise UserError(f"clip must be at most {MOST_CLIP:g}, not {self.clip:g}")
        if self.learning_rate * self.clip / self.epsilon > MOST_UPDATE:
            raise UserError(f"learning_rate x clip / epsilon, the largest update, must be at most {MOST_UPDATE:g}")
        if self.learning_rate * self.weight_decay > 1:
            raise UserError("learning_rate x weight_decay must be at most 1: weights would grow instead of decay")


@dataclass(frozen=True)
class EmulationConfig:
    """Replays the schedule's link, compute and sync times on a machine that is faster than the schedule's."""

    enabled: bool = True
    """Off: real time is what it is, and the model must be the schedule's own."""
    time_scale: float = 0.1
    """Multiplies every emulated time; 0.1 runs ten times faster than the schedule's network."""

    def __post_init__(self) -> None:
        require_positive(self, "time_scale")


@dataclass(frozen=True)
class CompressionConfig:
    """How messages are written on links; the cost model shortens hops and syncs accordingly."""

    encoding: Encoding = "fp32"
    """Of activations and gradients of hops. fp32 is exact; bf16 halves the bytes; int8 with one scale a row quarters
    them."""
    below_gib_s: float | None = None
    """Only hops over links of the schedule's network that are slower than this are compressed; by default all are."""
    sync: Encoding = "fp32"
    """Of the data-parallel sync: bf16, or int8 with one scale a block; sums are fp32's, and what rounding left out at
    a node is added to what it sends in the next iteration."""

    def __post_init__(self) -> None:
        if self.below_gib_s is not None:
            require_positive(self, "below_gib_s")


@dataclass(frozen=True)
class RunConfig:
    """One training run: which schedule, which model, which data, how long."""

    schedule: str = "original-20-nodes"
    """Schedule file, ours or the original code's schedule.json; a bare name is one of configs/schedules."""
    iterations: int = 12
    """Optimizer steps to run."""
    seed: int = 0
    """Seeds weights (with the layer's index) and batches (with node, iteration and microbatch), but for those of a hub
    dataset, which is read in its order."""
    device: str = "cpu"
    """Torch device of every node here; "cuda" spreads nodes over the GPUs of this machine, "cuda:1" is one of them."""
    threads: int | None = None
    """Threads that each node here computes with; by default its share of this machine's cores, but 1 if times are
    emulated and there are several nodes."""
    precision: Precision = "fp32"
    """bf16: forward, loss and backward under torch's autocast; weights, moments, gradients' sums and what goes from
    stage to stage stay fp32."""
    recompute: bool = False
    """Keep of a forward each layer's input alone and compute the rest again in backward: less memory, more time."""
    compile: bool = False
    """Let torch.compile make each node's layers faster: takes a minute or so before the node is ready, and on a CPU a
    C++ compiler."""
    runs: str = "runs"
    """Folder in which a run's folder is made."""
    checkpoint_every: int | None = 0
    """Save a checkpoint after this many iterations, again and again, at the end and on SIGTERM; 0: then only; null:
    never."""
    checkpoints_kept: int = 3
    """How many of the newest checkpoints stay on the disk; at least 2, as the newest may be unfinished."""
    evaluate_every: int = 0
    """Measure the full model's validation perplexity after this many iterations, again and again; 0: never."""
    timeline_every: int = 1
    """Write every so manyth iteration into the timeline, and those that begin with another set of nodes or stages."""
    name: str | None = None
    """Name of the run's folder; by default setting and start time."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    emulation: EmulationConfig = field(default_factory=EmulationConfig)
    compression: CompressionConfig = field(default_factory=CompressionConfig)
    peers: PeersConfig = field(default_factory=PeersConfig)

    def __post_init__(self) -> None:
        require_positive(self, "iterations", "timeline_every", *(["threads"] if self.threads is not None else []))
        if self.name is not None and not is_folder_name(self.name):
            raise UserError(f"name must be a folder's name of at most {MOST_NAME} characters, not {shown(self.name)}")
        if self.checkpoints_kept < 2:
            raise UserError(f"checkpoints_kept must be at least 2, not {self.checkpoints_kept}")
        for name in ("seed", "checkpoint_every", "evaluate_every"):
            if (getattr(self, name) or 0) < 0:
                raise UserError(f"{name} can't be negative, not {getattr(self, name)}")


def is_folder_name(name: str) -> bool:
    """Whether a text can name a folder inside another one."""
    return re.fullmatch(r"[^/\x00-\x1f]+", name) is not None and name not in (".", "..") and len(name) <= MOST_NAME
