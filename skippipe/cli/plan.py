"""What a run will need before anything is started or rented: memory, bytes and seconds of every node, as a table.

Memory is an estimate from the configuration; seconds are the schedule's.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from skippipe.cli.setting_choice import add_setting_arguments, chosen
from skippipe.cli.vocabulary import vocabulary_of

if TYPE_CHECKING:
    from skippipe.config import RunConfig
    from skippipe.runtime.needs import Needs
    from skippipe.schedule import Schedule

MB, GB = 1e6, 1e9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A configuration, a setting of its schedule, and samples."""
    add_setting_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    config, schedule, setting = chosen(arguments)
    from skippipe.cli.room import check_model
    from skippipe.runtime.needs import needs

    check_model(config, schedule)
    print(table(config, schedule, setting, needs(config, schedule, setting, vocabulary_of(config.data))))
    if config.emulation.enabled:
        print("the schedule's seconds are emulated; memory and bytes are the stand-in's", file=sys.stderr)
    return 0


def table(config: RunConfig, schedule: Schedule, setting: str, rows: list[Needs]) -> str:
    """A line a node, and what all do together."""
    plan, pipeline = schedule.settings[setting], schedule.pipeline
    on_gpu = config.device.startswith("cuda")
    heads = ["node", "stage", "parameters M", "state GB", "kept GB", "heirs GB", "task GB", "most GB"]
    heads += ["hops MB", "sync MB", "busy s", "sync s"]
    cells = [heads]
    for row in rows:
        size = [row.state, row.kept, row.sent, row.task, row.on_gpu if on_gpu else row.on_cpu]
        cells.append(
            [
                *(str(row.node), str(row.stage), f"{row.parameters / 1e6:.1f}"),
                *(f"{count / GB:.2f}" for count in size),
                *(f"{count / MB:.1f}" for count in (row.hop_bytes, row.sync_bytes)),
                *(f"{row.busy_s:.2f}", f"{plan.sync_s[row.stage]:.2f}"),
            ]
        )
    widths = [max(len(line[place]) for line in cells) for place in range(len(heads))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    stages = {row.stage: row.parameters for row in rows}
    tokens = len(plan.paths) * pipeline.samples_per_microbatch * config.model.context
    moved = sum(row.hop_bytes + row.sync_bytes for row in rows)
    memory = sum(row.on_gpu if on_gpu else row.on_cpu for row in rows)
    return "\n".join(
        [
            *lines,
            "",
            f"setting     {setting} of {config.schedule}, {pipeline.samples_per_microbatch} samples a microbatch,"
            f" {config.precision}{', recomputed' if config.recompute else ''}",
            f"model       {sum(stages.values()) / 1e6:.1f} million parameters in {len(stages)} stages",
            f"memory      {memory / GB:.1f} GB on {len(rows)} nodes, at most {max_of(rows, on_gpu) / GB:.2f} GB on one"
            f" {'GPU' if on_gpu else 'CPU'}",
            f"bytes       {moved / MB:.1f} MB a step",
            f"iteration   {plan.expected_iteration_s:.2f} s expected",
            f"step        {plan.expected_step_s:.2f} s expected, {tokens} tokens,"
            f" {tokens / plan.expected_step_s:.0f} a second",
        ]
    )


def max_of(rows: list[Needs], on_gpu: bool) -> int:
    """Most memory of a node."""
    return max(row.on_gpu if on_gpu else row.on_cpu for row in rows)
