"""Train a LLaMA over this machine's nodes FIRST to LAST - 1 along the paths of a schedule's setting."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from skippipe.config import CONFIGS, RunConfig, check_reachable
from skippipe.errors import UserError
from skippipe.fields import load_config
from skippipe.schedule import Schedule
from skippipe.schedule.compression import with_compression

if TYPE_CHECKING:
    from skippipe.data.batches import Prepared
    from skippipe.model.checkpoint import Checkpoint

DEFAULT_CONFIG = CONFIGS / "default.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments as in the paper's script, then a configuration."""
    parser.add_argument("first", metavar="FIRST", help="first node to start here")
    parser.add_argument("last", metavar="LAST", help="one past the last node to start here")
    parser.add_argument("setting", metavar="SETTING", help="a setting of the schedule: baseline, random, ..")
    parser.add_argument("samples", metavar="SAMPLES", help="sequences in a microbatch")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="[CONFIG] key=value",
        help=f"a YAML file (default {DEFAULT_CONFIG}), then fields to override, such as iterations=20"
        " emulation.time_scale=0.05 model.blocks=simplellm",
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--resume", metavar="RUN", type=Path, help="go on from the newest checkpoint of this run's folder, or from one"
    )
    start.add_argument(
        "--evaluate", metavar="RUN", type=Path,
        help="no training: validate this run's newest checkpoint over live nodes",
    )


def run(arguments: argparse.Namespace) -> int:
    """Check everything, start the nodes, show progress, print the summary."""
    began = time.monotonic()
    config, schedule, local = check(arguments)
    setting = arguments.setting
    if arguments.evaluate:
        from skippipe.cli.live_evaluation import run_evaluation

        return run_evaluation(arguments.evaluate, config, schedule, setting, local)
    folder = make_folder(config, setting, local)
    print(f"nodes {local.start} to {local.stop - 1} of {schedule.nodes}, setting {setting}, run folder {folder}")
    prepared = prepare_and_import(config)
    if config.model.init_from is not None:
        from skippipe.model.llama_folder import check_llama_folder

        check_llama_folder(config.model, len(schedule.settings[setting].stages), prepared.vocabulary)
    checkpoint = find_checkpoint(arguments.resume, config, schedule, setting, prepared) if arguments.resume else None
    # Imported here: the argument errors above should not wait for torch.
    from skippipe.cli.progress import Progress
    from skippipe.runtime.endpoint import Endpoint, open_endpoints
    from skippipe.runtime.launcher import Launcher, NodeFailedError, Stopped, stop_on_signals
    from skippipe.runtime.worker import Job, run_worker

    def run_node(endpoint: Endpoint) -> None:
        run_worker(Job(endpoint, setting, schedule, config, prepared, checkpoint))

    launcher = Launcher(*open_endpoints(config.peers, schedule.nodes, local, folder), run_node)
    stop_on_signals()
    try:
        launcher.start()
        progress = Progress(schedule, setting, config, folder, len(local), began)
        try:
            launcher.watch(progress.on_event)
        except Stopped as stopped:
            if stopped.number != signal.SIGTERM or not config.checkpoint_every or progress.ready < len(local):
                raise
            print("\nSIGTERM: saving a checkpoint at the end of the iteration", file=sys.stderr)
            launcher.ask_to_stop()
            launcher.watch(progress.on_event)
            progress.finish()
            print(f"saved; go on with --resume {folder}", file=sys.stderr)
            return 128 + stopped.number
        progress.finish()
    except NodeFailedError as error:
        launcher.stop_after(error)
        print(f"\nerror: {error}; the other nodes here were stopped. The end of {error.log}:", file=sys.stderr)
        print(error.last_lines(), file=sys.stderr)
        print(newest_checkpoint(folder), file=sys.stderr)
        return 1
    except Stopped as stopped:
        launcher.stop()
        print(f"\nstopped by {stopped}; every node was stopped. Logs: {folder}", file=sys.stderr)
        return 128 + stopped.number
    finally:
        launcher.stop()
    return 0


def check(arguments: argparse.Namespace) -> tuple[RunConfig, Schedule, range]:
    """Configuration, schedule and this machine's nodes; UserError before anything is started."""
    first, last = (whole(getattr(arguments, name), name.upper(), 0) for name in ("first", "last"))
    samples = whole(arguments.samples, "SAMPLES", 1)
    overrides = list(arguments.overrides)
    path: Path | None = Path(overrides.pop(0)) if overrides and "=" not in overrides[0] else DEFAULT_CONFIG
    config = load_config(RunConfig, path, overrides)
    schedule = Schedule.load(config.schedule)
    schedule.plan(arguments.setting, config.schedule)
    if not first < last:
        raise UserError(f"FIRST {first} must be below LAST {last}: LAST is one past the last node")
    if last > schedule.nodes:
        raise UserError(f"LAST {last} is beyond the {schedule.nodes} nodes of {config.schedule}; use at most that")
    check_model(config, schedule)
    if samples != schedule.pipeline.samples_per_microbatch:
        print(
            f"warning: {config.schedule} was made for {schedule.pipeline.samples_per_microbatch} samples a microbatch;"
            f" expected times are simulated again for {samples}",
            file=sys.stderr,
        )
        schedule = schedule.with_samples(samples)
    schedule = with_compression(config.compression, schedule)
    local = range(first, last)
    check_reachable(config.peers, schedule.nodes, local)
    return config, schedule, local


def whole(text: str, name: str, smallest: int) -> int:
    """A whole number from the command line."""
    if not text.isascii() or not text.isdigit() or int(text) < smallest:
        raise UserError(f"{name} must be a whole number of at least {smallest}, not {text!r}")
    return int(text)


def check_model(config: RunConfig, schedule: Schedule) -> None:
    """The model must be the schedule's; with emulation on a stand-in of another width will do."""
    fields = ["layers_per_stage"]
    if not config.emulation.enabled:
        fields += ["d_model", "heads", "context"]
    for name in fields:
        ours, theirs = getattr(config.model, name), getattr(schedule.pipeline, name)
        if ours != theirs:
            raise UserError(
                f"{config.schedule}: pipeline.{name} is {theirs}, but model.{name} is {ours}; add model.{name}={theirs}"
            )


def make_folder(config: RunConfig, setting: str, local: range) -> Path:
    """A fresh folder for the run."""
    name = config.name or f"{setting}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(config.runs) / name
    if (folder / f"node-{local.start}.log").exists():
        raise UserError(f"name: the folder {folder} holds a run already; choose another name or remove it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"runs: the folder {folder} can't be made ({error.strerror})") from None
    (folder / "config.json").write_text(json.dumps(dataclasses.asdict(config), indent=1) + "\n")
    return folder


def prepare_and_import(config: RunConfig) -> Prepared:
    """Prepare the data in a child process while this one imports what all nodes need."""
    from skippipe.data.batches import prepare

    child = os.fork()
    if child == 0:
        code = 1
        try:
            prepare(config.data)
            code = 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            code = 2
        finally:
            os._exit(code)
    # The garbage collector would look through all modules again and again, a sixth of the time, and find nothing.
    gc.disable()
    import torch

    import skippipe.runtime.launcher  # noqa: F401
    from skippipe.model.optimizer import make_adamw

    # Torch loads a good part of itself at the first optimizer; once here instead of once a node.
    make_adamw([torch.nn.Parameter(torch.zeros(1))], config.optimizer)
    gc.enable()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        sys.exit(code if code > 0 else 1)
    return prepare(config.data)


def find_checkpoint(path: Path, config: RunConfig, schedule: Schedule, setting: str, prepared: Prepared) -> Checkpoint:
    """The checkpoint to go on from; UserError where it is of another model or has nothing left to do."""
    from skippipe.model.checkpoint import check_same_model, find_latest

    checkpoint = find_latest(path)
    done = checkpoint.meta.iteration
    check_same_model(checkpoint, config, len(schedule.settings[setting].stages), prepared.vocabulary)
    if done >= config.iterations:
        raise UserError(f"{checkpoint.folder} has {done} iterations done already; add iterations={2 * done}")
    print(f"going on from {checkpoint.folder}")
    return checkpoint


def newest_checkpoint(folder: Path) -> str:
    """A line that says from where a failed run can go on."""
    from skippipe.model.checkpoint import find_latest

    try:
        return f"newest checkpoint: {find_latest(folder).folder}; go on from it with --resume {folder}"
    except UserError:
        return "no checkpoint was made; checkpoint_every=10 makes one every ten iterations"
