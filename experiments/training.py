"""Models trained for convergence and robustness: the variants, their paths, and one process that trains them."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch

from skippipe.config import DataConfig, ModelConfig, OptimizerConfig, Precision, RunConfig
from skippipe.data.batches import prepare, validation_batches
from skippipe.data.prepared import Prepared, TokenFile
from skippipe.errors import UserError
from skippipe.model.checkpoint import find_latest
from skippipe.model.checkpoint_meta import Meta
from skippipe.model.inference import all_stages, validation_loss
from skippipe.reference import ReferenceTrainer
from skippipe.schedule import Plan, Schedule

SCHEDULE = Path("configs/schedules/original-20-nodes.json")
ORIGINS, MICROBATCHES = 5, 30
NOT_RUN = (
    "Full scale (`--full`: 24 layers, d_model 1024, context 1024 in bf16, as near to the paper's 500M model as an hour "
    "of one GPU allows): not run, there was no GPU."
)


@dataclass(frozen=True)
class Variant:
    """A model to train: how its microbatches walk."""

    name: str
    label: str
    stages: int
    setting: str | None = None
    """Take the paths of this setting of the 20-node schedule, else draw them by the rules below."""
    path_length: int = 0
    swaps: bool = True
    even: bool = True
    """Every stage but 0 visited equally often (CC3), else the first ones more."""


VARIANTS = (
    Variant("full", "full model (DT-FM*)", 6, setting="baseline"),
    Variant("skip-33", "33% skip, 6 stages (SkipPipe)", 6, setting="ca-partial"),
    Variant("skip-25", "25% skip, 4 stages, drawn paths", 4, path_length=3),
    Variant("drawn", "33% skip, drawn paths", 6, path_length=4),
    Variant("drawn-no-swaps", "33% skip, drawn paths without swaps", 6, path_length=4, swaps=False),
    Variant("drawn-uneven", "33% skip, drawn paths, uneven (no CC3)", 6, path_length=4, even=False),
    Variant("random", "33% skip (DT-FM-skip)", 6, setting="random"),
    Variant("non-ca-partial", "33% skip (SkipPipe without TC2)", 6, setting="non-ca-partial"),
)
MAIN = ("full", "skip-25", "skip-33")
COLOURS = {"full": "#8c8c8c", "skip-25": "#d95f02", "skip-33": "#1b9e77"}


@dataclass(frozen=True)
class Scale:
    """How large the models are and how long they train."""

    name: str
    layers: int
    model: ModelConfig
    optimizer: OptimizerConfig
    samples: int
    """Sequences in a microbatch."""
    iterations: int
    evaluate_every: int
    validation_samples: int
    """Sequences of the held-out text that perplexity is measured on."""
    device: str = "cpu"
    precision: Precision = "fp32"


QUICK = Scale(
    name="quick",
    layers=12,
    model=ModelConfig(d_model=96, heads=3, context=128),
    optimizer=OptimizerConfig(learning_rate=2e-3, warmup_iterations=20),
    samples=1,
    iterations=200,
    evaluate_every=20,
    validation_samples=64,
)
FULL = Scale(
    name="full",
    layers=24,
    model=ModelConfig(d_model=1024, heads=16, context=1024),
    optimizer=OptimizerConfig(learning_rate=3e-4, warmup_iterations=20),
    samples=4,
    iterations=500,
    evaluate_every=20,
    validation_samples=64,
    device="cuda",
    precision="bf16",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What experiments that train take besides the scale."""
    parser.add_argument("--iterations", type=int, help="train for another number of iterations")
    parser.add_argument("--validation-samples", type=int, help="validate on another number of sequences")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the trained models")


def scale_of(arguments: argparse.Namespace) -> Scale:
    """The scale that the arguments ask for; on a CPU one thread, so that a machine's other work goes on."""
    scale = QUICK if arguments.quick else FULL
    if scale.device == "cpu":
        torch.set_num_threads(1)
    return dataclasses.replace(
        scale,
        iterations=arguments.iterations or scale.iterations,
        validation_samples=arguments.validation_samples or scale.validation_samples,
    )


def draw_paths(variant: Variant, seed: int = 0) -> list[list[int]]:
    """Stages of each microbatch's path, drawn under CC1 and CC2, and under CC3 if the variant is even."""
    generator = numpy.random.default_rng(seed)
    visits = numpy.zeros(variant.stages)
    favour = numpy.linspace(3.0, 1.0, variant.stages - 1)
    paths = []
    for _ in range(MICROBATCHES):
        if variant.even:
            # The stages visited least so far, ties at random: visits never differ by more than one.
            ranking = numpy.lexsort((generator.random(variant.stages - 1), visits[1:]))
        else:
            ranking = numpy.argsort(-favour * generator.random(variant.stages - 1))
        chosen = sorted(int(stage) + 1 for stage in ranking[: variant.path_length - 1])
        visits[chosen] += 1
        paths.append([0, *(swap_once(chosen, generator) if variant.swaps else chosen)])
    return paths


def swap_once(stages: list[int], generator: numpy.random.Generator) -> list[int]:
    """Half of the time exchange one pair of neighbouring stages, where the path has one (CC2: one stage behind)."""
    places = [place for place in range(len(stages) - 1) if stages[place + 1] == stages[place] + 1]
    if not places or generator.random() < 0.5:
        return stages
    place = int(generator.choice(places))
    return [*stages[:place], stages[place + 1], stages[place], *stages[place + 2 :]]


def plan_of(variant: Variant) -> Plan:
    """The variant's plan; in one process the stages' other nodes make no difference, so drawn plans have one each."""
    if variant.setting:
        return Schedule.load(SCHEDULE).plan(variant.setting, str(SCHEDULE))
    stages = (tuple(range(ORIGINS)), *((ORIGINS + stage,) for stage in range(variant.stages - 1)))
    paths = tuple(
        (microbatch % ORIGINS, *(ORIGINS + stage - 1 for stage in path[1:]))
        for microbatch, path in enumerate(draw_paths(variant))
    )
    return Plan(stages, paths, {}, (0.0,) * variant.stages, 0.0, 0.0)


def config_of(variant: Variant, scale: Scale) -> RunConfig:
    """Configuration of a variant's run."""
    model = dataclasses.replace(scale.model, layers_per_stage=scale.layers // variant.stages)
    return RunConfig(
        iterations=scale.iterations,
        device=scale.device,
        precision=scale.precision,
        model=model,
        optimizer=scale.optimizer,
        data=DataConfig(),
    )


def train(variant: Variant, scale: Scale, runs: Path) -> list[dict[str, Any]]:
    """Train a variant, or go on from its last checkpoint, or find it done; its lines of metrics.jsonl."""
    if scale.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--full trains on a GPU and there is none here; use --quick, or run it where torch sees one")
    folder = runs / f"convergence-{scale.name}" / variant.name
    config = config_of(variant, scale)
    plan, prepared = plan_of(variant), prepare(config.data)
    trainer = ReferenceTrainer(config, plan, scale.samples, prepared)
    digest = hashlib.sha256(repr(plan.paths).encode()).hexdigest()
    first, cpu_before, run = 0, 0.0, secrets.token_hex(13)
    lines = read_metrics(folder)
    if (folder / "checkpoints").exists():
        checkpoint = find_latest(folder)
        trainer.resume(checkpoint)
        first, run = checkpoint.meta.iteration, checkpoint.meta.run
        lines = [line for line in lines if line["iteration"] < first]
        cpu_before = lines[-1]["cpu_s"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    began, cpu_began = time.perf_counter(), time.process_time()
    for iteration in range(first, scale.iterations):
        loss = trainer.train_iteration(iteration)
        done = iteration + 1
        line = {"iteration": iteration, "loss": loss, "cpu_s": cpu_before + time.process_time() - cpu_began}
        line["tokens"] = done * len(plan.paths) * scale.samples * config.model.context
        if done % scale.evaluate_every == 0 or done == scale.iterations:
            line["validation_perplexity"] = full_model_perplexity(trainer, scale, prepared)
            name = variant.setting or variant.name
            meta = Meta(done, len(trainer.stages), prepared.vocabulary, name, digest, run, config)
            print(
                f"{variant.name}: {done} of {scale.iterations} iterations, loss {loss:.3f}, validation perplexity "
                f"{line['validation_perplexity']:.1f}, {time.perf_counter() - began:.0f} s",
                flush=True,
            )
        lines.append(line)
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        if "validation_perplexity" in line:
            trainer.save(folder, meta)
    return lines


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, none if there is no such file."""
    file = folder / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def held_out(scale: Scale, prepared: Prepared) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The validation batches of a scale."""
    return validation_batches(prepared, 8, scale.model.context, max(1, scale.validation_samples // 8))


def full_model_perplexity(trainer: ReferenceTrainer, scale: Scale, prepared: Prepared) -> float:
    """Perplexity of the held-out text with every stage."""
    visited = all_stages(len(trainer.stages))
    return math.exp(validation_loss(trainer.stages, visited, held_out(scale, prepared)))


def unigram_perplexity(scale: Scale, prepared: TokenFile) -> float:
    """Perplexity of the held-out batches under the training text's token frequencies (add-one smoothed)."""
    tokens = prepared.map_tokens()[: prepared.train_tokens]
    counts = numpy.bincount(tokens, minlength=prepared.vocabulary) + 1.0
    log_probability = numpy.log(counts / counts.sum())
    targets = torch.cat([targets_BT.flatten() for _, targets_BT in held_out(scale, prepared)]).numpy()
    return math.exp(-float(log_probability[targets].mean()))
