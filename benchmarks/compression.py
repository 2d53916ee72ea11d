"""What compressed hops and syncs save, and what they do to training: `python benchmarks/compression.py PART`.

    runs      the main job under each encoding: bytes, expected and measured step, losses of the same batches
    expected  the cost model's step: of ca-partial, and of joint searched for the encoding
    training  losses of a small model whose hops and syncs are compressed, against the spread of exact ones over seeds
    codec     GB of fp32 a second that a sync writes and reads on one core, and what blocks of int8 round away

Each part replaces its own section of the results file. What runs/ has of it already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import whole_runs

from skippipe.config import SYNC_BLOCK, CompressionConfig, Encoding, ModelConfig, OptimizerConfig, RunConfig
from skippipe.data.batches import prepare, validation_batches
from skippipe.model import gradient_codec
from skippipe.model.gradient_codec import GradientCodec
from skippipe.model.inference import all_stages, validation_loss
from skippipe.reference import ReferenceTrainer
from skippipe.report.metrics import SUMMARY, read_summary
from skippipe.schedule import Plan, Schedule
from skippipe.schedule.compression import with_compression
from skippipe.search.joint.solver import JointOptions, search_joint
from skippipe.search.problem import Instance
from skippipe.transport.message import Encoding as MessageEncoding
from skippipe.transport.message import Header, MessageKind, pack, unpack

SCHEDULE = Path("configs/schedules/original-20-nodes.json")
CASES = {
    "all in fp32": [],
    "hops in bf16": ["compression.encoding=bf16"],
    "hops in int8": ["compression.encoding=int8"],
    "hops in int8 below 0.05 GiB/s": ["compression.encoding=int8", "compression.below_gib_s=0.05"],
    "hops and syncs in bf16": ["compression.encoding=bf16", "compression.sync=bf16"],
    "hops and syncs in int8": ["compression.encoding=int8", "compression.sync=int8"],
}
MODEL, OPTIMIZER = ModelConfig(d_model=64, heads=2, context=64), OptimizerConfig(2e-3, warmup_iterations=20)
STAGES = ((0, 1, 2), (3, 4), (5, 6), (7, 8))
PATHS = ((0, 3, 5), (1, 6, 7), (2, 4, 8), (0, 5, 8), (1, 3, 7), (2, 4, 6))
SAMPLES = 2
"""Of the part `training`."""
ENCODINGS: tuple[Encoding, ...] = ("fp32", "bf16", "int8")
PART = 1 << 18
"""Numbers of a part of an all-reduce."""


def runs(arguments: argparse.Namespace) -> list[str]:
    """Every case on the same schedule and data."""
    lines = ["| case | MB of hops sent | expected step s | measured step s | loss first | loss last |"]
    lines += ["|---|---|---|---|---|---|"]
    for number, (name, fields) in enumerate(CASES.items()):
        folder = Path("runs") / f"compression-{number}-{arguments.iterations}"
        if not (folder / SUMMARY).exists():
            if name not in arguments.rows:
                continue
            shape = ["0", "20", "ca-partial", "8", f"name={folder.name}", f"iterations={arguments.iterations}"]
            whole_runs.finish(whole_runs.start([*shape, *fields]))
        found = read_summary(folder)
        lines.append(
            f"| {name} | {found.bytes_sent / 1e6:.1f} | {found.expected_step_s:.2f} |"
            f" {found.measured_step_s:.2f} | {found.loss_first:.4f} | {found.loss_last:.4f} |"
        )
    return lines


def pairs(
    name: str, arguments: argparse.Namespace, measure: Callable[[Encoding, int], tuple[float, float]]
) -> dict[str, list[list[float]]]:
    """What `measure` finds for each encoding and seed."""
    folder = Path("runs/compression")
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[list[float]]] = {}
    for encoding in ENCODINGS:
        for seed in range(arguments.seeds):
            file = folder / f"{name}-{encoding}-{seed}.json"
            if encoding in arguments.rows and not file.exists():
                file.write_text(json.dumps(measure(encoding, seed)))
            if file.exists():
                found.setdefault(encoding, []).append(json.loads(file.read_text()))
    return found


def expected(arguments: argparse.Namespace) -> list[str]:
    """The step with hops and syncs in each encoding, of the shipped paths and of those searched for it."""

    def schedule_for(encoding: Encoding) -> Schedule:
        return with_compression(CompressionConfig(encoding, sync=encoding), Schedule.load(SCHEDULE))

    def joint(encoding: Encoding, seed: int) -> tuple[float, float]:
        schedule = schedule_for(encoding)
        instance = Instance.from_schedule(schedule, "ca-partial")
        plan = search_joint(instance, schedule.plan("ca-partial"), JointOptions(arguments.seconds, seed=seed))
        instance.schedule({"joint": plan}).validate()
        return plan.expected_iteration_s, plan.expected_step_s

    found = pairs(f"joint-{arguments.seconds:g}", arguments, joint)
    lines = ["| hops and syncs in | ca-partial: iteration s | step s | joint, by seed: iteration s | step s |"]
    lines += ["|---|---|---|---|---|"]
    for encoding in ENCODINGS:
        plan = schedule_for(encoding).plan("ca-partial")
        columns = zip(*found.get(encoding, []), strict=True)
        cells = [", ".join(f"{value:.2f}" for value in column) for column in columns] or ["-", "-"]
        times = f"{plan.expected_iteration_s:.2f} | {plan.expected_step_s:.2f}"
        lines.append(f"| {encoding} | {times} | {' | '.join(cells)} |")
    return [f"`joint` searched for {arguments.seconds:g} s a seed on {os.cpu_count()} cores.", "", *lines]


def training(arguments: argparse.Namespace) -> list[str]:
    """Losses after training with each encoding of hops and syncs, in one process."""

    def losses(encoding: Encoding, seed: int) -> tuple[float, float]:
        return trained(encoding, seed, arguments.iterations)

    lines = [
        "| hops and syncs in | training loss, by seed | mean | held-out loss, by seed | mean |",
        "|---|---|---|---|---|",
    ]
    for encoding, rows in pairs(f"training-{arguments.iterations}", arguments, losses).items():
        cells = []
        for column in zip(*rows, strict=True):
            cells += [", ".join(f"{loss:.4f}" for loss in column), f"{statistics.mean(column):.4f}"]
        lines.append(f"| {encoding} | {' | '.join(cells)} |")
    text = (
        f"Stages {[list(nodes) for nodes in STAGES]}, a layer each of width {MODEL.d_model}, context {MODEL.context};"
        f" {len(PATHS)} skipping paths of {SAMPLES} sequences, learning rate {OPTIMIZER.learning_rate:g}."
        " Training loss is the mean of the last 20 iterations; the same seed has the same batches."
    )
    return [text, "", *lines]


class Hop(torch.autograd.Function):
    """A hop there and, backwards, the gradient's hop: each arrives as a link's encoding writes it."""

    @staticmethod
    def forward(context: Any, hidden_BTD: torch.Tensor, encoding: Encoding) -> torch.Tensor:
        """What arrives of an activation."""
        context.encoding = encoding
        return sent(hidden_BTD, encoding)

    @staticmethod
    def backward(context: Any, gradient_BTD: torch.Tensor) -> tuple[torch.Tensor, None]:
        """What arrives of its gradient."""
        return sent(gradient_BTD, context.encoding), None


def sent(tensor: torch.Tensor, encoding: Encoding) -> torch.Tensor:
    """What a peer reads of a message."""
    head, payload = pack(Header(MessageKind.ACTIVATION, 0, 0, 0, 0.0), tensor, MessageEncoding[encoding.upper()])
    return unpack(np.frombuffer(bytearray(head + bytes(payload)), dtype=np.uint8))[1]


class CompressedHops(ReferenceTrainer):
    """The same training with every hop written as compression.encoding says."""

    def path_loss(self, visited: list[int], tokens_BT: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
        """Loss of a batch whose activations and gradients are rounded from stage to stage."""
        encoding, hidden_BTD = self.config.compression.encoding, self.stages[0](tokens_BT)
        for stage in visited[1:]:
            hidden_BTD = self.stages[stage](Hop.apply(hidden_BTD, encoding))  # type: ignore[no-untyped-call]
        return self.stages[0].loss(Hop.apply(hidden_BTD, encoding), targets_BT)  # type: ignore[no-untyped-call]


def trained(encoding: Encoding, seed: int, iterations: int) -> tuple[float, float]:
    """Training loss, the mean of the last 20 iterations, and held-out loss of the full model."""
    torch.set_num_threads(1)
    compression = CompressionConfig(encoding, sync=encoding)
    config = RunConfig(iterations=iterations, seed=seed, model=MODEL, optimizer=OPTIMIZER, compression=compression)
    plan, prepared = Plan(STAGES, PATHS, {}, (0.0,) * len(STAGES), 0.0, 0.0), prepare(config.data)
    trainer = CompressedHops(config, plan, SAMPLES, prepared)
    losses = [trainer.train_iteration(iteration) for iteration in range(iterations)]
    held_out = validation_batches(prepared, 8, MODEL.context, 16)
    return statistics.mean(losses[-20:]), validation_loss(trainer.stages, all_stages(len(trainer.stages)), held_out)


def codec(_arguments: argparse.Namespace) -> list[str]:
    """Speed of writing and reading a sync's parts, and the error of int8 by block, on one core."""
    torch.set_num_threads(1)
    numbers = 64 * PART
    lines = ["| encoding | writes GB/s | reads GB/s | RMS of what is left out, of the part's |", "|---|---|---|---|"]
    cases: list[tuple[Encoding, int]] = [("bf16", SYNC_BLOCK), *(("int8", 64 << step) for step in range(5))]
    for encoding, block in cases:
        gradient_codec.SYNC_BLOCK = block
        form, gradient = GradientCodec(encoding, numbers), torch.empty(numbers)
        # Scales of neighbouring numbers differ as between a layer's rows.
        original = torch.randn(numbers // 1024, 1024).mul_(torch.randn(numbers // 1024, 1).exp()).flatten()
        places = [slice(begin, begin + PART) for begin in range(0, numbers, PART)]

        def write(form: GradientCodec = form, gradient: torch.Tensor = gradient, places: list[slice] = places) -> None:
            for place in places:
                form.write(place.start, gradient[place])

        def read(form: GradientCodec = form, places: list[slice] = places) -> None:
            for place in places:
                form.read(form.messages[place.start], PART)

        def again(gradient: torch.Tensor = gradient, original: torch.Tensor = original) -> None:
            gradient.copy_(original)

        write_s, read_s = seconds(write, again), seconds(read, again)
        error = float(form.pending.norm() / original.norm())
        name = f"int8, blocks of {block}" if encoding == "int8" else encoding
        lines.append(f"| {name} | {4e-9 * numbers / write_s:.2f} | {4e-9 * numbers / read_s:.2f} | {error:.4f} |")
    return lines


def seconds(work: Callable[[], None], before: Callable[[], None], repeats: int = 7) -> float:
    """Median seconds of some work, with something done before each time."""
    taken = []
    for _ in range(repeats + 1):
        before()
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


PARTS: dict[str, tuple[str, Callable[[argparse.Namespace], list[str]]]] = {
    "runs": ("The main job, ca-partial", runs),
    "expected": ("Expected times on the original's network, simulated", expected),
    "training": ("Losses with compressed hops and syncs", training),
    "codec": ("Writing and reading a sync", codec),
}


def with_section(text: str, title: str, lines: list[str]) -> str:
    """A results file's text with a section of this title, in the place of an older one of that title."""
    sections = re.split(r"^(?=## )", text, flags=re.M)
    kept = [section for section in sections if not section.startswith(f"## {title}\n")]
    return "".join(kept).rstrip() + "\n\n" + "\n".join([f"## {title}", *lines]) + "\n"


def main() -> None:
    """Run a part and write its section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--iterations", type=int, default=8, help="of each run or training: optimizer steps")
    rows = [*ENCODINGS, *CASES]
    parser.add_argument("--rows", nargs="*", default=rows, choices=rows, help="measure these only (or none)")
    parser.add_argument("--seeds", type=int, default=1, help="of joint, of training")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each search of joint")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/compression.md"), help="results file")
    arguments = parser.parse_args()
    title, measure = PARTS[arguments.part]
    chosen = {"runs": ("iterations",), "expected": ("seeds", "seconds"), "training": ("iterations", "seeds")}.get(
        arguments.part, ()
    )
    options = "".join(f" --{name} {getattr(arguments, name):g}" for name in chosen)
    lines = measure(arguments)
    print("\n".join(lines))
    head = whole_runs.header(title, f"python benchmarks/compression.py {arguments.part}{options}")
    text = arguments.out.read_text() if arguments.out.exists() else "# Compressed hops and syncs\n"
    arguments.out.write_text(with_section(text, title, [*head[1:], *lines]))


if __name__ == "__main__":
    main()
