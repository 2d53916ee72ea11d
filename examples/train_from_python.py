"""Training from Python: a schedule for six nodes is searched, and six processes train a small LLaMA along it.

python examples/train_from_python.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import skippipe
from skippipe.config import DataConfig, EmulationConfig, ModelConfig, OptimizerConfig


def main(folder: Path) -> None:
    """Search, train, and say how the loss fell."""
    schedule = skippipe.search(
        skippipe.SearchConfig(
            nodes=6,
            stages=3,
            stage_sizes=(2, 2, 2),
            path_length=3,
            layers_per_stage=1,
            samples_per_microbatch=4,
            settings=("ca-partial",),
            trials=200,
            pipeline_steps=2_000,
            path_steps=2_000,
        )
    )
    config = skippipe.RunConfig(
        iterations=8,
        runs=str(folder),
        # A stand-in for the schedule's model; its links and compute are emulated, fifty times faster than real.
        model=ModelConfig(d_model=32, context=32),
        data=DataConfig(source="files", paths=(str(Path(__file__).parent / "*.py"),), vocabulary=400),
        optimizer=OptimizerConfig(learning_rate=1e-2),
        emulation=EmulationConfig(time_scale=0.02),
    )
    run = skippipe.train(schedule, "ca-partial", config)
    summary = run.summary
    print(f"loss {summary['loss_first']:.3f} to {summary['loss_last']:.3f} in {summary['iterations']} iterations")
    print(f"step {summary['measured_step_s']:.2f} s measured, {summary['expected_step_s']:.2f} s expected")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/from-python"))
