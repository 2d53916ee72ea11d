"""Search a schedule and write it as JSON: nodes to stages, paths and orders for every setting."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from pathlib import Path
from typing import Any

import yaml

from skippipe.errors import UserError
from skippipe.fields import build, convert, field_docs, read_yaml
from skippipe.report.maps import draw_maps
from skippipe.report.plots import draw_gantt
from skippipe.schedule import Schedule
from skippipe.schedule.costs import GIB
from skippipe.search.config import SearchConfig
from skippipe.search.driver import search
from skippipe.search.problem import Instance
from skippipe.search.progress import Progress
from skippipe.search.warm_up import warm_up


def add_arguments(parser: argparse.ArgumentParser, block: dict[str, Any] | None = None) -> None:
    """A flag for every hyperparameter; `block` has their defaults, by default SearchConfig's."""
    block = dataclasses.asdict(SearchConfig()) if block is None else block
    parser.add_argument("--config", type=Path, help="YAML file with any of the hyperparameters")
    parser.add_argument("--out", default="schedule.json", help="file to write (default: schedule.json)")
    parser.add_argument("--plot", action="store_true", help="draw node map, stages and Gantt charts beside the file")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    docs = field_docs(SearchConfig)
    for entry in dataclasses.fields(SearchConfig):
        text = f"{docs[entry.name]} Default: {block[entry.name]}".replace("%", "%%")
        parser.add_argument(f"--{entry.name.replace('_', '-')}", metavar="VALUE", help=text)
    parser.set_defaults(block=block, source=parser.prog)


def run(arguments: argparse.Namespace) -> int:
    """Search, write the file and the pictures, print what was found."""
    config = configuration(arguments)
    instance = Instance.from_config(config)
    out = Path(arguments.out)
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise UserError(f"--out {out}: can't be written (no such folder, or a folder itself)")
    progress = Progress(show=not arguments.quiet)
    print(describe(instance), flush=True)
    print("loading the compiled simulator (the first run compiles it, once: half a minute)", flush=True)
    warm_up(config)
    with progress.stop_on_interrupt():
        schedule = search(instance, config, progress)
    try:
        schedule.save(out)
    except OSError as error:
        raise UserError(f"--out {out}: can't be written ({error.strerror or error})") from None
    pictures = draw(schedule, out) if arguments.plot else []
    print("\n".join(f"wrote {path}" for path in [out, *pictures]) + f"\n\n{result_table(schedule)}")
    if told := cut_short(schedule):
        print(told)
    return 0


def configuration(arguments: argparse.Namespace) -> SearchConfig:
    """Command line, configuration file and block of defaults, merged in that order of weight."""
    hints = typing.get_type_hints(SearchConfig)
    document = dict(arguments.block)
    if arguments.config:
        document |= read_yaml(arguments.config)
    for entry in dataclasses.fields(SearchConfig):
        if (text := getattr(arguments, entry.name)) is not None:
            document[entry.name] = flag_value(text, hints[entry.name], f"--{entry.name.replace('_', '-')}")
    return build(SearchConfig, document, str(arguments.config or arguments.source))


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
        f" forward {instance.costs.forward_s.mean():.2f} s, {pipeline.hop_bytes / 2**20:.0f} MiB a hop"
    )


def draw(schedule: Schedule, out: Path) -> list[Path]:
    """Node map, stages and Gantt chart of each setting, as PNGs beside the schedule file."""
    pictures = []
    for setting in schedule.settings:
        for name, drawing in (("map", draw_maps), ("gantt", draw_gantt)):
            pictures.append(out.with_name(f"{out.stem}-{setting}-{name}.png"))
            drawing(schedule, setting, pictures[-1])
    return pictures


def cut_short(schedule: Schedule) -> str | None:
    """A line if the time was over before the genetic algorithm had made all of its trials."""
    record = next(iter(schedule.settings.values())).search
    trials, asked = record.get("trials", 0), record.get("trials_asked", 0)
    if trials == asked:
        return None
    return (
        f"\nGCMA, which assigns nodes to stages, made {trials} of {asked} trials; with more time_budget_s it makes more"
    )


def result_table(schedule: Schedule) -> str:
    """What was found, one line a setting: the iteration against the baseline's and against its lower bounds."""
    heads = ("setting", "iteration", "step", "GiB moved", "search", "against baseline", "over any stages' bound")
    rows: list[tuple[str, ...]] = [(*heads, "over these stages' bound")]
    baseline = schedule.settings.get("baseline")
    for setting, plan in schedule.settings.items():
        moved = len(plan.paths) * 2 * plan.path_length * schedule.pipeline.hop_bytes / GIB
        saving = f"{plan.expected_iteration_s / baseline.expected_iteration_s - 1:+.1%}" if baseline else "-"
        gaps = [
            f"{plan.expected_iteration_s / plan.search[bound] - 1:+.1%}"
            for bound in ("lower_bound_s", "lower_bound_of_stages_s")
        ]
        rows.append(
            (
                setting,
                f"{plan.expected_iteration_s:.2f} s",
                f"{plan.expected_step_s:.2f} s",
                f"{moved:.2f}",
                "-" if plan.search["seconds"] is None else f"{plan.search['seconds']:.1f} s",
                saving,
                *gaps,
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        row[0].ljust(widths[0]) + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )
