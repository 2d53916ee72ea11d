"""The memory that `skippipe plan` names for a GPU is what a node takes there, within a tenth."""

from __future__ import annotations

import gc
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from skippipe.config import EmulationConfig, ModelConfig, RunConfig
from skippipe.model.optimizer import StageOptimizer
from skippipe.model.stage import Stage
from skippipe.runtime.emulation import Emulation
from skippipe.runtime.executor import Executor, expected_senders
from skippipe.runtime.needs import GPU_CONTEXT_BYTES, needs
from skippipe.schedule import Schedule
from skippipe.transport.inbox import Inbox
from skippipe.transport.message import Header
from skippipe.transport.work import Work
from tests.small_schedule import small_schedule

MODEL = ModelConfig(d_model=1024, heads=16, layers_per_stage=2, context=512)
SAMPLES, VOCABULARY = 8, 8000
GPU = torch.device("cuda:0")


def schedule() -> Schedule:
    return small_schedule().with_samples(SAMPLES)


def batch(iteration: int, microbatch: int) -> tuple[torch.Tensor, torch.Tensor]:
    tokens_BT = torch.zeros(SAMPLES, MODEL.context, dtype=torch.int64)
    return tokens_BT, tokens_BT


def peak_bytes(config: RunConfig, node: int) -> int:
    """Most that torch takes of the GPU in two iterations of a node and their steps, with all inputs there."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(GPU)
    before = torch.cuda.memory_allocated(GPU)
    plan, costs = schedule().plan("ca-partial"), schedule().costs
    stage = Stage(MODEL, plan.stage_of()[node], VOCABULARY, 0, config.precision, config.recompute).to(GPU)
    optimizer = StageOptimizer(stage, config.optimizer, 2)
    senders = expected_senders(plan, node)
    inbox = Inbox(senders, lambda sender: 0.0)
    emulation = Emulation.of(EmulationConfig(enabled=False), costs, node, 0.0, 0)
    executor = Executor(node, plan, stage, batch, inbox, lambda *_: None, emulation, inbox.clock, Work())
    for iteration in range(2):
        optimizer.zero()
        executor.begin(iteration, plan)
        for (kind, microbatch), sender in senders.items():
            hidden_BTD = torch.randn(SAMPLES, MODEL.context, MODEL.d_model)
            inbox.put(Header(kind, iteration, microbatch, sender, 0.0), hidden_BTD)
        executor.run()
        executor.finish()
        own = optimizer.flat.clone()
        optimizer.step(iteration, optimizer.squared_norm())
        del own
    return torch.cuda.max_memory_allocated(GPU) - before


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recompute", [False, True], ids=["keep", "recompute"])
@pytest.mark.parametrize("node", [0, 2], ids=["origin", "relay"])
def test_a_node_takes_what_is_estimated(precision: str, recompute: bool, node: int) -> None:
    config = replace(RunConfig(model=MODEL), precision=precision, recompute=recompute)  # type: ignore[arg-type]
    row = needs(config, schedule(), "ca-partial", VOCABULARY)[node]
    assert peak_bytes(config, node) == pytest.approx(row.on_gpu - GPU_CONTEXT_BYTES, rel=0.1)


def test_a_process_takes_no_more_beside_tensors_than_is_estimated(tmp_path: Path) -> None:
    free, _ = torch.cuda.mem_get_info(GPU)
    script = "import torch; a = torch.randn(64, 64, device='cuda:0'); a @ a; print(torch.cuda.mem_get_info(0)[0])"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    # A tensor takes 2 MiB at least.
    assert free - int(printed.stdout) < 1.1 * GPU_CONTEXT_BYTES
