"""What compressed links save, and what they do to training: `python benchmarks/compression.py`.

The expected step is the cost model's with the hops of compressed links shortened; losses are of the same batches.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import whole_runs

from skippipe.report.metrics import read_summary

CASES = {
    "fp32": [],
    "bf16": ["compression.encoding=bf16"],
    "int8": ["compression.encoding=int8"],
    "int8 below 0.05 GiB/s": ["compression.encoding=int8", "compression.below_gib_s=0.05"],
}


def main() -> None:
    """Run every case on the same schedule and data, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=8, help="optimizer steps of each run")

    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/compression.md"), help="results file")
    arguments = parser.parse_args()
    command = f"python benchmarks/compression.py --iterations {arguments.iterations}"
    lines = whole_runs.header("Compressed links: the main job, ca-partial", command)
    lines += [
        "| links | MB sent | expected step s | measured step s | loss first | loss last |",
        "|---|---|---|---|---|---|",
    ]
    for number, (name, fields) in enumerate(CASES.items()):
        folder = Path("runs") / f"compression-{number}-{time.strftime('%H%M%S')}"
        process = whole_runs.start(
            ["0", "20", "ca-partial", "8", f"name={folder.name}", f"iterations={arguments.iterations}", *fields]
        )
        whole_runs.finish(process)
        found = read_summary(folder)
        lines.append(
            f"| {name} | {found.bytes_sent / 1e6:.1f} | {found.expected_step_s:.2f} |"
            f" {found.measured_step_s:.2f} | {found.loss_first:.4f} | {found.loss_last:.4f} |"
        )
        print(lines[-1], flush=True)
    arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
