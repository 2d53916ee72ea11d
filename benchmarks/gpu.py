"""A stage of the 500M model on a GPU, run by the executor and by plain transformers code: `python benchmarks/gpu.py`.

Both compute the same in bf16 under autocast: forward and backward of each microbatch, the gradients of a relay's input
or an origin's loss among it. The executor gets its inputs from the CPU and leaves its results there, as links do; plain
code has everything on the GPU. No optimizer, no links.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import whole_runs
from transformers import LlamaForCausalLM, LlamaModel

from skippipe.config import CONFIGS, EmulationConfig, ModelConfig, RunConfig
from skippipe.fields import load_config
from skippipe.model.blocks import llama_config
from skippipe.model.footprint import matrix_numbers
from skippipe.model.stage import Stage
from skippipe.runtime.emulation import Emulation
from skippipe.runtime.executor import Executor, expected_senders
from skippipe.schedule import Costs, Plan
from skippipe.schedule.plan import Kind, Task
from skippipe.transport.inbox import Inbox
from skippipe.transport.message import Header, pack
from skippipe.transport.work import Work

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 FLOPs a second, by a part of the card's name (NVIDIA's data sheets)."""
WARM_UPS, TURNS = 2, 5
"""Passes over all microbatches; the median of the turns counts."""
REACH = 0.95
STAGES = {"relay": 1, "origin": 0}


@dataclass(frozen=True)
class Job:
    """What both compute."""

    model: ModelConfig
    vocabulary: int
    samples: int
    """In a microbatch."""
    microbatches: int
    device: torch.device
    compiled: bool

    @property
    def tokens(self) -> int:
        """Of all microbatches."""
        return self.samples * self.model.context * self.microbatches

    def flops(self, kind: str) -> float:
        """Of forward and backward of all microbatches: 6 a token and number of a matrix, and causal attention's."""
        model = self.model
        matrices = model.layers_per_stage * matrix_numbers(model)
        if kind == "origin":
            matrices += model.d_model * self.vocabulary
        attention = model.layers_per_stage * model.d_model * model.context
        return 6.0 * self.tokens * (matrices + attention)


class OneNode(Executor):
    """The executor of a node whose inputs are all there."""

    def __init__(self, job: Job, kind: str) -> None:
        node, numbers = (0 if kind == "origin" else 1), range(job.microbatches)
        kinds = (Kind.FORWARD, Kind.LOSS, Kind.BACKWARD) if kind == "origin" else (Kind.FORWARD, Kind.BACKWARD)
        order = {node: tuple(Task(own, number) for number in numbers for own in kinds)}
        plan = Plan(((0,), (1,)), ((0, 1),) * job.microbatches, order, (0.0, 0.0), 0.0, 0.0)
        stage = Stage(job.model, STAGES[kind], job.vocabulary, 0, "bf16", compiled=job.compiled).to(job.device)
        emulation = Emulation.of(
            EmulationConfig(enabled=False), Costs(np.zeros(2), 1.0, 1.0, 0.0, np.zeros((2, 2))), node, 0.0, 0
        )
        self.job, self.senders, self.turn = job, expected_senders(plan, node), 0
        inbox = Inbox(self.senders, lambda sender: 0.0)
        super().__init__(node, plan, stage, self.batch, inbox, self.packed, emulation, inbox.clock, Work())
        shape = (job.samples, job.model.context)
        self.tokens_BT = torch.randint(job.vocabulary, shape)
        self.hidden_BTD = torch.randn(*shape, job.model.d_model)

    def batch(self, iteration: int, microbatch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The same for every microbatch."""
        return self.tokens_BT, self.tokens_BT

    def packed(self, receiver: int, header: Header, tensor: torch.Tensor) -> None:
        """What sending takes of the executor's thread."""
        pack(header, tensor)

    def seconds(self) -> float:
        """Of one pass over all microbatches."""
        self.begin(self.turn, self.plan)
        for (kind, microbatch), sender in self.senders.items():
            self.inbox.put(Header(kind, self.turn, microbatch, sender, 0.0), self.hidden_BTD.clone())
        began = time.perf_counter()
        self.run()
        ended = time.perf_counter()
        self.finish()
        self.turn += 1
        return ended - began


class Plain:
    """The same layers as a user of transformers would run them."""

    def __init__(self, job: Job, kind: str) -> None:
        config = llama_config(job.model, 1, job.vocabulary)
        self.job, self.kind = job, kind
        self.network = (LlamaForCausalLM if kind == "origin" else LlamaModel)(config).to(job.device)
        if job.compiled:
            self.network.compile(dynamic=False)
        shape = (job.samples, job.model.context)
        self.tokens_BT = torch.randint(job.vocabulary, shape, device=job.device)
        self.hidden_BTD = torch.randn(*shape, job.model.d_model, device=job.device)

    def microbatch(self) -> None:
        """Forward and backward."""
        with torch.autocast(self.job.device.type, torch.bfloat16):
            if self.kind == "origin":
                loss = self.network(self.tokens_BT, labels=self.tokens_BT, use_cache=False).loss
            else:
                entered = self.hidden_BTD.detach().requires_grad_()
                left_BTD = self.network(inputs_embeds=entered, use_cache=False).last_hidden_state
        if self.kind == "origin":
            loss.backward()
        else:
            left_BTD.backward(self.hidden_BTD.to(left_BTD.dtype))

    def seconds(self) -> float:
        """Of one pass over all microbatches."""
        began = self.settled()
        for _ in range(self.job.microbatches):
            self.microbatch()
        return self.settled() - began

    def settled(self) -> float:
        """Time when everything asked of the device is done."""
        if self.job.device.type == "cuda":
            torch.cuda.synchronize(self.job.device)
        return time.perf_counter()


def medians(job: Job, kind: str) -> tuple[float, float]:
    """Seconds that the executor and plain code take for all microbatches, in turns."""
    ours, plain = OneNode(job, kind), Plain(job, kind)
    asked: tuple[Callable[[], float], ...] = (ours.seconds, plain.seconds)
    for _ in range(WARM_UPS):
        for ask in asked:
            ask()
    times = [[ask() for ask in asked] for _ in range(TURNS)]
    first, second = (statistics.median(column) for column in zip(*times, strict=True))
    return first, second


def row(job: Job, kind: str, peak: float | None) -> tuple[str, float]:
    """A line of the table, and how much of plain code's speed the executor reaches."""
    ours_s, plain_s = medians(job, kind)
    cells = [kind, "yes" if job.compiled else "no"]
    for seconds in (ours_s, plain_s):
        share = "-" if peak is None else f"{job.flops(kind) / seconds / peak:.1%}"
        cells += [f"{job.tokens / seconds:.0f}", f"{job.flops(kind) / seconds / 1e12:.2f}", share]
    return f"| {' | '.join([*cells, f'{plain_s / ours_s:.3f}'])} |", plain_s / ours_s


def table(jobs: list[Job], peak: float | None) -> tuple[list[str], float]:
    """The table of all jobs, and the least that the executor reaches of plain code's speed."""
    columns = "tokens a second, ours | TFLOP/s | MFU | tokens a second, plain | TFLOP/s | MFU | ours over plain"
    found = [row(job, kind, peak) for job in jobs for kind in STAGES]
    lines = [f"| stage | compiled | {columns} |", "|---" * 9 + "|", *(line for line, _ in found)]
    return lines, min(ratio for _, ratio in found)


def main() -> int:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=8, help="sequences of a microbatch")
    parser.add_argument("--microbatches", type=int, default=10, help="of a pass")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu.md"), help="results file")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("error: this needs a GPU: torch.cuda.is_available() is False here; nothing was measured", file=sys.stderr)
        return 2
    config, device = load_config(RunConfig, CONFIGS / "llama-500m.yaml", []), torch.device("cuda:0")
    name = torch.cuda.get_device_name(device)
    peak = next((flops for part, flops in PEAKS.items() if part in name), None)
    jobs = [
        Job(config.model, config.data.vocabulary, arguments.samples, arguments.microbatches, device, compiled)
        for compiled in (False, True)
    ]
    lines, least = table(jobs, peak)
    command = f"python benchmarks/gpu.py --samples {arguments.samples} --microbatches {arguments.microbatches}"
    head = [*whole_runs.header("A stage on a GPU", command), f"{name}, one card.", ""]
    verdict = f"The executor reaches {least:.3f} of plain code's speed at least; wanted are {REACH}."
    print("\n".join([*lines, "", verdict]))
    arguments.out.write_text("\n".join([*head, *lines, "", verdict]) + "\n")
    return 0 if least >= REACH else 1


if __name__ == "__main__":
    sys.exit(main())
