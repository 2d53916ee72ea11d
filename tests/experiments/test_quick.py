"""Every experiment runs at its smallest and writes a results file with its provenance, tables and figures."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300

SMALLEST = {
    "convergence": ["--iterations", "1", "--variants", "skip-25", "--validation-samples", "8"],
    "inference_robustness": ["--iterations", "1", "--draws", "2", "--validation-samples", "8"],
    "iteration_time": ["--budget", "1", "--setups", "18-nodes-4k", "defaults-27", "--seeds", "1", "--no-run"],
    "bytes_and_time": ["--budget", "0.5", "--trials", "50"],
    "drifting_links": ["--budget", "1", "--trials", "50"],
    "search_cost": ["--nodes", "20", "--budgets", "1", "--seeds", "1"],
}
TRAINS = ("convergence", "inference_robustness")


@pytest.mark.parametrize("name", SMALLEST)
def test_an_experiment_writes_its_results(name: str, tmp_path: Path) -> None:
    runs = ["--runs", str(tmp_path)] if name in TRAINS else []
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "experiments" / f"{name}.py"),
            "--quick",
            "--results",
            str(tmp_path),
            *SMALLEST[name],
            *runs,
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    [results] = tmp_path.glob("*.md")
    text = results.read_text()
    assert re.search(
        rf"^- Command: `python experiments/{name}\.py --quick [^`]*`; [-0-9]{{10}}; .* cores, ", text, re.M
    )
    assert "| --- |" in text
    for figure in tmp_path.glob("*.png"):
        assert f"({figure.name})" in text
    assert any(tmp_path.glob("*.png"))


def test_the_results_of_the_iteration_time_are_those_that_were_kept(tmp_path: Path) -> None:
    results = ROOT / "experiments" / "results"
    shutil.copy(results / "iteration-time-quick.json", tmp_path)
    command = [sys.executable, str(ROOT / "experiments" / "iteration_time.py"), "--quick", "--no-run", "--methods"]
    done = subprocess.run(
        [*command, "--results", str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
    written, shown = (
        [line for line in (folder / "iteration-time-quick.md").read_text().splitlines() if "Versions:" not in line]
        for folder in (tmp_path, results)
    )
    assert written == shown


def test_full_scale_without_a_gpu_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "convergence.py"), "--full", "--results", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: --full trains on a GPU")
