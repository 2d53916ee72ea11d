"""A run's folder: how it is named and made, its config.json, and the process id and log of each node."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

from skippipe.config import RunConfig
from skippipe.errors import UserError
from skippipe.fields import build
from skippipe.report.records import read_json

CONFIG = "config.json"


def make_run_folder(config: RunConfig, setting: str, first_node: int, joins: bool = False) -> Path:
    """A folder for a run, with its configuration; UserError if this machine's part of one is there already.

    It may be, if the node `joins` a run that other machines go on with.
    """
    name = config.name or f"{setting}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(config.runs) / name
    try:
        if not joins and log_file(folder, first_node).exists():
            raise UserError(f"name: the folder {folder} holds a run already; choose another name or remove it")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"runs: the folder {folder} can't be written ({error.strerror})") from None
    write_config(folder, config)
    return folder


def write_config(folder: Path, config: RunConfig) -> None:
    """Leave a run's configuration in its folder; UserError if that can't be written."""
    try:
        (folder / CONFIG).write_text(json.dumps(dataclasses.asdict(config), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"runs: the folder {folder} can't be written ({error.strerror})") from None


def read_config(folder: Path) -> RunConfig:
    """The configuration of a run; UserError if the file is missing or not one."""
    path = folder / CONFIG
    document = read_json(path)
    if not isinstance(document, dict):
        raise UserError(f"{path}: is not a run's configuration")
    return build(RunConfig, document, str(path))


def log_file(folder: Path, node: int) -> Path:
    """Where a node's process writes its log."""
    return folder / f"node-{node}.log"


def write_process_id(folder: Path, node: int, pid: int) -> None:
    """Leave a node's process id, as a whole or not at all, for whoever wants to look at the process or end it."""
    written = folder / f"node-{node}.pid.tmp"
    written.write_text(f"{pid}\n")
    written.replace(folder / f"node-{node}.pid")


def process_ids(folder: Path) -> dict[int, int]:
    """Process ids by node, of the nodes that were started on the machines that share the folder."""
    return {int(path.stem.removeprefix("node-")): int(path.read_text()) for path in sorted(folder.glob("node-*.pid"))}
