"""The benchmark of a stage on a GPU: that both sides do the work it counts, and what it says where there is no GPU."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from skippipe.config import ModelConfig
from tests.benchmarks.conftest import LoadScript


@pytest.fixture
def gpu(load_script: LoadScript) -> ModuleType:
    """The program as a module."""
    return load_script("gpu")


@pytest.mark.parametrize("kind", ["relay", "origin"])
def test_both_sides_do_the_work_that_is_counted(gpu: ModuleType, kind: str) -> None:
    job = gpu.Job(ModelConfig(context=16), 100, 2, 3, torch.device("cpu"), False)
    for side in (gpu.OneNode(job, kind), gpu.Plain(job, kind)):
        with FlopCounterMode(display=False) as counter:
            assert side.seconds() > 0
        assert counter.get_total_flops() == pytest.approx(job.flops(kind), rel=0.05)


def test_a_row_has_a_cell_for_each_column(gpu: ModuleType) -> None:
    job = gpu.Job(ModelConfig(context=16), 100, 1, 1, torch.device("cpu"), False)
    lines, least = gpu.table([job], 1e12)
    assert least > 0
    assert [line.count("|") for line in lines] == [10] * 4
    assert "%" in lines[2]
    assert "%" not in gpu.row(job, "relay", None)[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path / "gpu.md")])
    assert gpu.main() == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "error: this needs a GPU: torch.cuda.is_available() is False here; nothing was measured"
    ]
    assert not (tmp_path / "gpu.md").exists()
