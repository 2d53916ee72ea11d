"""Search a schedule and write it as JSON: nodes to stages, paths and orders for every setting.

    python create_schedule.py [--config FILE] [--out schedule.json] [--plot] [--<hyperparameter> VALUE ..]

Edit the block below, or put any of its fields into a YAML file, or give them as flags, which win.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
import typing
from pathlib import Path
from typing import Any

import yaml

from skippipe.errors import UserError
from skippipe.fields import build, convert, field_docs, read_yaml
from skippipe.maps import draw_maps
from skippipe.plots import draw_gantt
from skippipe.schedule import Schedule
from skippipe.search.driver import SOLVERS, search
from skippipe.search.problem import Instance, SearchConfig
from skippipe.search.progress import Progress
from skippipe.search.warm_up import warm_up

HYPERPARAMETERS: dict[str, Any] = {
    # The peers and their links.
    "nodes": 20,  # peers that train together
    "network": "gcp-12",  # configs/networks/<name>.yaml (gcp-12, gcp-12-as-published) or your own YAML file
    "subset": None,  # subset of the network's locations: 5-clusters or single-cluster of gcp-12; None: all locations
    "locations": [],  # location of each node, one name a node; empty: round and round over the network's list
    # How the model is cut. a = nodes of stage 0, b of every other stage: a x (path_length - 1) = b x (stages - 1).
    "stages": 6,  # parts of the model; more parts need less memory a node and make more hops
    "stage_sizes": [5, 3, 3, 3, 3, 3],  # nodes of each stage; stage 0 also reads the data and computes the loss
    "path_length": 4,  # stages that a microbatch visits, stage 0 among them; 4 of 6 skips 33%
    "memory": 3,  # microbatches that a node can hold; more overlap, more memory
    # The model's stage and the batch: what a forward and a hop take.
    "layers_per_stage": 4,  # decoder layers; forward_s = seconds per sample and layer of the network x samples x layers
    "d_model": 1024,  # width of the residual stream; bytes of a hop = 4 x d_model x context x samples
    "heads": 16,  # attention heads; kept in the file for the runtime
    "context": 1024,  # tokens in a sequence
    "samples_per_microbatch": 8,  # sequences in a microbatch; more: fewer, longer tasks and hops
    "microbatches_per_node": 6,  # microbatches that each stage-0 node sends in an iteration; a multiple of memory
    # The search.
    "settings": list(SOLVERS),  # what to search: baseline, random, non-ca-partial, ca-partial, joint
    "population": 200,  # assignments that the genetic algorithm keeps; more: wider, slower
    "trials": 8000,  # offspring that it breeds; more: better stages, longer
    "sync_slack": 2.0,  # how many times GCMA's the sync of a stage may last; more: faster iterations, slower syncs
    "conflict_nodes": 300,  # constraint sets that conflict-based search expands; more: better paths, longer
    "pipeline_steps": 40000,  # annealing moves on paths that an origin's microbatches share; 100,000 a second
    "path_steps": 100000,  # annealing moves on a path for each microbatch; 25,000 a second at 20 nodes
    "joint_steps": 100000000,  # annealing moves of `joint` on each of two cores; 200,000 a second at 20 nodes
    "robust": 0.0,  # error of the links that `joint` prepares for: 0.1 takes the mean over links off by +-10%; 0: none
    "seed": 0,  # of every random choice: the same seed and steps give the same file, as long as the time suffices
    "time_budget_s": 60.0,  # seconds for everything; the best schedule found by then is written
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, or 2 for a mistake of the user."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        options, config = parse(arguments)
        instance = Instance.from_config(config)
        out = Path(options.out)
        if out.is_dir() or not out.absolute().parent.is_dir():
            raise UserError(f"--out {out}: can't be written (no such folder, or a folder itself)")
        progress = Progress(show=not options.quiet)
        print(describe(instance), flush=True)
        print("loading the compiled simulator (the first run compiles it, once: half a minute)", flush=True)
        warm_up(config)
        with progress.stop_on_interrupt():
            schedule = search(instance, config, progress)
        try:
            schedule.save(out)
        except OSError as error:
            raise UserError(f"--out {out}: can't be written ({error.strerror or error})") from None
        pictures = draw(schedule, out) if options.plot else []
        print("\n".join(f"wrote {path}" for path in [out, *pictures]) + f"\n\n{result_table(schedule)}")
    except UserError as error:
        print(f"create_schedule.py: {error}", file=sys.stderr)
        return 2
    return 0


def parse(arguments: list[str] | None) -> tuple[argparse.Namespace, SearchConfig]:
    """Command line, configuration file and the block above, merged in that order of weight."""
    parser = argparse.ArgumentParser(description="Search a schedule: who holds which stage, who sends what to whom.")
    parser.add_argument("--config", type=Path, help="YAML file with any of the hyperparameters")
    parser.add_argument("--out", default="schedule.json", help="file to write (default: schedule.json)")
    parser.add_argument("--plot", action="store_true", help="draw node map, stages and Gantt charts beside the file")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    hints = typing.get_type_hints(SearchConfig)
    docs = field_docs(SearchConfig)
    for entry in dataclasses.fields(SearchConfig):
        text = f"{docs[entry.name]} Default: {HYPERPARAMETERS[entry.name]}".replace("%", "%%")
        parser.add_argument(f"--{entry.name.replace('_', '-')}", metavar="VALUE", help=text)
    options = parser.parse_args(arguments)
    document = dict(HYPERPARAMETERS)
    if options.config:
        document |= read_yaml(options.config)
    for entry in dataclasses.fields(SearchConfig):
        if (text := getattr(options, entry.name)) is not None:
            document[entry.name] = flag_value(text, hints[entry.name], f"--{entry.name.replace('_', '-')}")
    return options, build(SearchConfig, document, str(options.config or "create_schedule.py"))


def flag_value(text: str, hint: Any, flag: str) -> Any:
    """The value of a flag, written as in YAML; a list may also be written 5,3,3."""
    is_list = typing.get_origin(hint) is tuple
    try:
        value = yaml.safe_load(f"[{text}]" if is_list and not text.startswith("[") else text)
    except yaml.YAMLError:
        value = text
    converted = convert(value, hint, flag)
    return list(converted) if isinstance(converted, tuple) else converted


def describe(instance: Instance) -> str:
    """The problem in a line."""
    pipeline = instance.pipeline
    return (
        f"{instance.nodes} nodes on {instance.network_name}, {pipeline.stages} stages of {list(instance.stage_sizes)},"
        f" path length {pipeline.path_length} (skips {1 - pipeline.path_length / pipeline.stages:.0%}),"
        f" forward {instance.costs.forward_s.mean():.2f} s, {pipeline.activation_bytes / 2**20:.0f} MiB a hop"
    )


def draw(schedule: Schedule, out: Path) -> list[Path]:
    """Node map, stages and Gantt chart of each setting, as PNGs beside the schedule file."""
    pictures = []
    for setting in schedule.settings:
        for name, drawing in (("map", draw_maps), ("gantt", draw_gantt)):
            pictures.append(out.with_name(f"{out.stem}-{setting}-{name}.png"))
            drawing(schedule, setting, pictures[-1])
    return pictures


def result_table(schedule: Schedule) -> str:
    """What was found, one line a setting: the iteration against the baseline's and against its lower bounds."""
    heads = ("setting", "iteration", "step", "GiB moved", "search", "against baseline", "over any stages' bound")
    rows: list[tuple[str, ...]] = [(*heads, "over these stages' bound")]
    baseline = schedule.settings.get("baseline")
    for setting, plan in schedule.settings.items():
        moved = len(plan.paths) * 2 * plan.path_length * schedule.pipeline.activation_bytes / 2**30
        saving = f"{plan.expected_iteration_s / baseline.expected_iteration_s - 1:+.1%}" if baseline else "-"
        gaps = [
            f"{plan.expected_iteration_s / plan.search[bound] - 1:+.1%}"
            for bound in ("lower_bound_s", "lower_bound_of_stages_s")
        ]
        rows.append(
            (setting, f"{plan.expected_iteration_s:.2f} s", f"{plan.expected_step_s:.2f} s", f"{moved:.2f}",
             f"{plan.search['seconds']:.1f} s", saving, *gaps)
        )  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        row[0].ljust(widths[0]) + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )


if __name__ == "__main__":
    sys.exit(main())
