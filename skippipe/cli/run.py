"""Train a LLaMA over this machine's nodes FIRST to LAST - 1 along the paths of a schedule's setting."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from skippipe.cli.entry import Entry, enter
from skippipe.cli.hosting import lines
from skippipe.cli.joining import way_back
from skippipe.cli.launch import launch
from skippipe.cli.prepare import DEFAULT_CONFIG, prepare_and_import, whole_number
from skippipe.cli.room import check_model, check_room
from skippipe.cli.saved import check_part, find_checkpoint, newest_checkpoint
from skippipe.config import Encoding, RunConfig
from skippipe.errors import UserError
from skippipe.peers import check_reachable
from skippipe.report.run_folder import write_config
from skippipe.runtime.claims import goes_on
from skippipe.schedule import Schedule
from skippipe.schedule.compression import with_compression

if TYPE_CHECKING:
    from skippipe.cli.progress import Progress
    from skippipe.data.prepared import Prepared
    from skippipe.model.checkpoint import Checkpoint
    from skippipe.runtime.endpoint import Endpoint
    from skippipe.runtime.events import Leaving
    from skippipe.runtime.launcher import Launcher
    from skippipe.runtime.processes import NodeFailedError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments as in the paper's script, then a configuration."""
    parser.add_argument("first", metavar="FIRST", help="first node to start here")
    parser.add_argument("last", metavar="LAST", help="one past the last node to start here")
    parser.add_argument("setting", metavar="SETTING", help="a setting of the schedule: baseline, random, ..")
    parser.add_argument("samples", metavar="SAMPLES", help="sequences in a microbatch")
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="[CONFIG] key=value",
        help=f"a YAML file (default {DEFAULT_CONFIG}), then fields to override, such as iterations=20"
        " emulation.time_scale=0.05 model.blocks=simplellm",
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--resume", metavar="RUN", type=Path, help="go on from the newest checkpoint of this run's folder, or from one"
    )
    start.add_argument(
        "--evaluate",
        metavar="RUN",
        type=Path,
        help="no training: validate this run's newest checkpoint over live nodes",
    )
    others = parser.add_mutually_exclusive_group()
    others.add_argument("--host", action="store_true", help="print a line that starts the other nodes elsewhere")
    others.add_argument(
        "--join",
        nargs="?",
        const="",
        metavar="INVITATION",
        help="follow what --host has printed elsewhere; alone: start these nodes for a run that goes on without them"
        " (docs/machines.md)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Check everything, start the nodes, show progress, print the summary."""
    began = time.monotonic()
    first, last = (whole_number(getattr(arguments, name), name.upper(), 0) for name in ("first", "last"))
    samples = whole_number(arguments.samples, "SAMPLES", 1)
    if not first < last:
        raise UserError(f"FIRST {first} must be below LAST {last}: LAST is one past the last node")
    local = range(first, last)
    config, entry = enter(arguments, local, samples)
    schedule = check(config, arguments.setting, samples, local, entry)
    if arguments.evaluate:
        from skippipe.cli.live_evaluation import run_evaluation

        return run_evaluation(arguments.evaluate, config, schedule, arguments.setting, local)
    shown = ""
    if entry.hosts:
        assert entry.invitation is not None
        shown = lines(entry.invitation, arguments, schedule.nodes, local, config.peers.connect_seconds)
    return train(config, schedule, arguments.setting, local, arguments.resume, entry, began, way_back(arguments), shown)


def train(
    config: RunConfig,
    schedule: Schedule,
    setting: str,
    local: range,
    resume: Path | None,
    entry: Entry,
    began: float,
    back: str,
    shown: str = "",
) -> int:
    """Train on this machine's nodes, from the beginning or from a checkpoint of the run `resume`; the exit code.

    `began` is when the command did, in monotonic seconds. `back` says how these nodes come back to a run that may go
    on without them. `shown` is printed once the nodes have started.
    """
    joins = entry.joins
    folder = entry.find_folder(config, setting, schedule.nodes, local)
    print(f"nodes {local.start} to {local.stop - 1} of {schedule.nodes}, setting {setting}, run folder {folder}")
    is_shared = joins and goes_on(folder, schedule.nodes)
    prepared = prepare_and_import(
        config, lambda prepared: check_room(config, schedule, setting, local, prepared, folder), entry.prepare
    )
    config = with_revision(config, prepared, folder)
    if config.model.init_from is not None:
        from skippipe.model.llama_folder import check_llama_folder

        check_llama_folder(config.model, len(schedule.settings[setting].stages), prepared.vocabulary)
    is_alone, checkpoint, spread = len(local) == schedule.nodes, None, None
    if resume and is_alone and not joins:
        checkpoint = find_checkpoint(resume, config, schedule, setting, prepared)
        say_where_it_goes_on(checkpoint, config, prepared, len(schedule.settings[setting].stages[0]))
    elif resume:
        spread = resume
        check_part(resume, config, schedule, setting, prepared)
    # Imported here: errors in arguments should not wait for torch.
    from skippipe.cli.progress import Progress
    from skippipe.runtime.equal import equal_fields
    from skippipe.runtime.job import Job
    from skippipe.runtime.node import run_worker

    fields = equal_fields(schedule, setting, config, prepared, resume is not None, entry.python)
    company = entry.company(config, schedule, setting, folder.name, prepared, local)

    def run_node(endpoint: Endpoint) -> None:
        run_worker(Job(endpoint, setting, schedule, config, prepared, checkpoint, spread))

    def follow(launcher: Launcher) -> int:
        if shown:
            print(shown, flush=True)
        progress = Progress(schedule, setting, config, folder, local, began, joins, not is_shared)
        return watch_training(launcher, progress, saves=config.checkpoint_every is not None)

    def explain(error: NodeFailedError) -> str:
        before = checkpoint.folder if checkpoint is not None else resume
        told = explained(error, folder, is_alone, before)
        return "\n".join([*told, *([] if is_alone or not error.cut_off else [back])])

    farewell = f". Logs: {folder}"
    return launch(config.peers, schedule.nodes, local, folder, fields, run_node, follow, explain, farewell, company)


def explained(error: NodeFailedError, folder: Path, is_alone: bool, before: Path | None) -> list[str]:
    """What the user reads of a node that has failed: why, and from where the run can go on.

    `before` is the checkpoint that the run itself went on from.
    """
    if error.diverged:
        return [str(error), newest_checkpoint(folder, "newest good checkpoint", is_alone, before)]
    told = f"{error}; the other nodes here were stopped. The end of {error.log}:"
    return [told, error.last_lines(), newest_checkpoint(folder, "newest checkpoint", is_alone, before)]


def with_revision(config: RunConfig, prepared: Prepared, folder: Path) -> RunConfig:
    """The configuration with the commit of the dataset that is read, if it is on the hub; the run's folder keeps it."""
    from skippipe.data.stream import Streamed

    if not isinstance(prepared, Streamed):
        return config
    pinned = replace(config, data=replace(config.data, hub_revision=prepared.text.revision))
    write_config(folder, pinned)
    return pinned


def watch_training(launcher: Launcher, progress: Progress, saves: bool) -> int:
    """Show progress until the nodes have ended; the exit code. SIGTERM lets a run that `saves` save first."""
    from skippipe.runtime.processes import NodeFailedError
    from skippipe.runtime.signals import Stopped

    try:
        try:
            launcher.watch(progress.on_event, progress.survives, progress.stays_away)
        except Stopped as stopped:
            if stopped.number != signal.SIGTERM or not saves or progress.ready < progress.nodes:
                raise
            print("\nSIGTERM: saving a checkpoint at the end of the iteration", file=sys.stderr)
            launcher.ask_to_stop()
            launcher.watch(progress.on_event, progress.survives, progress.stays_away)
    except NodeFailedError as error:
        if error.diverged:
            progress.finish()
        raise
    progress.finish()
    if progress.leaving is not None:
        return say_what_was_saved(progress, progress.leaving)
    if saves and progress.lines:
        saved = progress.saved_after(progress.lines[-1].iteration + 1)
        print(f"{'model':24} {saved.where}{f' is not complete: {saved.missing}' if saved.missing else ''}")
    return 0


def say_what_was_saved(progress: Progress, leaving: Leaving) -> int:
    """Name the checkpoint with which a run was left early, after making sure that it is there; the exit code."""
    done = leaving.iteration + 1
    print(f"\nnode {leaving.asked} and its machine were told to stop (SIGTERM)", file=sys.stderr)
    saved = progress.saved_after(done)
    if saved.missing:
        print(
            f"error: {done} iterations were done, but {saved.where} is not complete: {saved.missing}", file=sys.stderr
        )
        return 1
    everywhere = "" if progress.is_alone else " on every machine"
    print(f"saved after {done} iterations; go on with --resume {progress.folder}{everywhere}", file=sys.stderr)
    return 128 + signal.SIGTERM


def say_where_it_goes_on(checkpoint: Checkpoint, config: RunConfig, prepared: Prepared, parts: int) -> None:
    """Name the checkpoint that a run goes on from, whose text has so many parts, and what is another one in the run."""
    from skippipe.runtime.going_on import warnings_of

    print(f"going on from {checkpoint.folder}")
    for warning in warnings_of(checkpoint, config, prepared, parts):
        print(warning, file=sys.stderr)


def check(config: RunConfig, setting: str, samples: int, local: range, entry: Entry) -> Schedule:
    """The schedule, for so many samples a microbatch; UserError, before anything is started, if it can't be run."""
    schedule = Schedule.load(config.schedule)
    schedule.plan(setting, config.schedule)
    if local.stop > schedule.nodes:
        raise UserError(
            f"LAST {local.stop} is beyond the {schedule.nodes} nodes of {config.schedule}; use at most that"
        )
    if entry.hosts and len(local) == schedule.nodes:
        raise UserError(f"--host: all {schedule.nodes} nodes start here, so that nobody is missing; leave it out")
    check_model(config, schedule)
    if samples != schedule.pipeline.samples_per_microbatch:
        print(
            f"warning: {config.schedule} was made for {schedule.pipeline.samples_per_microbatch} samples a microbatch;"
            f" expected times are simulated again for {samples}",
            file=sys.stderr,
        )
        schedule = schedule.with_samples(samples)
    made_for = {"hops": schedule.pipeline.hop_encoding, "syncs": schedule.pipeline.sync_encoding}
    asked = {"hops": config.compression.encoding, "syncs": config.compression.sync}
    if set(made_for.values()) != {"fp32"} and made_for != asked:
        print(
            f"warning: {config.schedule} was made for {describe(made_for)}; expected times are simulated again for"
            f" {describe(asked)} (compression.encoding, compression.sync)",
            file=sys.stderr,
        )
    schedule = with_compression(config.compression, schedule)
    # Those that join one of this machine's runs need not be told where the others are.
    if not entry.joins or entry.invited is not None:
        check_reachable(config.peers, schedule.nodes, local)
    return schedule


def describe(encodings: dict[str, Encoding]) -> str:
    """Encodings of hops and syncs in words."""
    return " and ".join(f"{name} in {encoding}" for name, encoding in encodings.items())
