"""What can be seen of this machine before a run is started on it: one finding a point."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from skippipe.cli.prepare import check_device
from skippipe.cli.room import (
    DISK_REMEDY,
    check_enough,
    check_memory,
    check_model,
    checkpoint_bytes,
    free_disk_bytes,
    free_memory_bytes,
    memory_bytes,
)
from skippipe.config import DataConfig, RunConfig
from skippipe.errors import UserError
from skippipe.fields import user_path
from skippipe.peers import PeersConfig, check_reachable
from skippipe.report.run_folder import log_file
from skippipe.schedule import Schedule
from skippipe.transport.addresses import Address, shown_address
from skippipe.transport.identity import SECRET_VARIABLE, cluster_secret
from skippipe.transport.membership import Listeners

if TYPE_CHECKING:
    from skippipe.runtime.needs import Needs

SHOWN_PACKAGES = ("skippipe", "torch", "deccom")
PIN = re.compile(r"([\w-]+)\s*==\s*([\w.]+)\s*$")
GB = 1e9


class Verdict(Enum):
    """What a finding means for the run."""

    FINE = "ok"
    NOTE = "note"
    """It may be wrong, and does not stop a run."""
    STOP = "STOP"
    """It would stop the run."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table."""

    what: str
    verdict: Verdict
    text: str


def judged(what: str, text: str, *checks: Callable[[], object]) -> Finding:
    """That a point is fine, unless one of the checks raises a UserError, which says why it is not."""
    try:
        for check in checks:
            check()
    except UserError as error:
        return Finding(what, Verdict.STOP, str(error))
    return Finding(what, Verdict.FINE, text)


def versions() -> dict[str, str]:
    """Of Python and the packages that matter most; of one that is not installed "none"."""
    found = {"Python": platform.python_version()}
    for name in SHOWN_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def look_at_versions(found: dict[str, str]) -> Finding:
    """Whether what is installed is what this version is made for."""
    text = ", ".join(f"{name} {version}" for name, version in found.items())
    missing = [name for name, version in found.items() if version == "none"]
    if missing:
        return Finding("versions", Verdict.STOP, f"{text}; ./setup.sh installs {', '.join(missing)}")
    pins = [pin for line in importlib.metadata.requires("skippipe") or () if (pin := PIN.match(line))]
    wanted = {pin[1]: pin[2] for pin in pins}
    # A build's own name, such as +cpu, is no other version.
    other = [name for name, version in found.items() if version.partition("+")[0] != wanted.get(name, version)]
    if other:
        made_for = ", ".join(f"{name} {wanted[name]}" for name in other)
        return Finding("versions", Verdict.NOTE, f"{text}; made for {made_for}: ./setup.sh installs it")
    return Finding("versions", Verdict.FINE, text)


def look_at_fields(config: RunConfig, schedule: Schedule, setting: str, local: range) -> Finding:
    """Whether model, schedule and peers fit one another."""
    samples = schedule.pipeline.samples_per_microbatch
    nodes = f"nodes {local.start} to {local.stop - 1} of {schedule.nodes}"
    text = f"{nodes}, {setting} of {config.schedule}, {samples} samples"
    return judged(
        "run",
        text,
        lambda: check_model(config, schedule),
        lambda: check_reachable(config.peers, schedule.nodes, local),
    )


def look_at_secret(peers: PeersConfig, is_alone: bool) -> tuple[bytes | None, Finding]:
    """The cluster's secret, None if there is none, and what is to be said of it."""
    if not peers.authenticate:
        return None, Finding("secret", Verdict.NOTE, "peers.authenticate=false: whoever reaches the ports may talk")
    if peers.secret_file is None and SECRET_VARIABLE not in os.environ:
        if is_alone and peers.for_this_machine_only:
            return None, Finding(
                "secret", Verdict.FINE, "none is needed: no machine can reach the nodes, which make one"
            )
        text = "none is given; make one (docs/machines.md) and give every machine the same peers.secret_file"
        return None, Finding("secret", Verdict.STOP, text)
    try:
        secret = cluster_secret(peers.secret_file, alone=False)
    except UserError as error:
        return None, Finding("secret", Verdict.STOP, str(error))
    text = f"from {SECRET_VARIABLE}"
    if peers.secret_file is not None:
        text = f"{peers.secret_file}, mode {Path(peers.secret_file).expanduser().stat().st_mode & 0o777:03o}"
    return secret, Finding("secret", Verdict.FINE, text)


def bind(peers: PeersConfig, local: range, public: Address | None) -> tuple[dict[int, Listeners], Finding]:
    """Sockets of the nodes, as far as they can be had, to be reached at `public` + node, and what that says."""
    first, last = peers.first_port + local.start, peers.first_port + local.stop - 1
    if not peers.first_port:
        return {}, Finding("ports", Verdict.FINE, "first_port=0: free ones are chosen when the run starts")
    listeners: dict[int, Listeners] = {}
    taken: list[str] = []
    for node in local:
        port = peers.first_port + node
        try:
            listeners[node] = Listeners.bind(peers.host, port, (public[0], public[1] + node) if public else None)
        except (OSError, OverflowError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            taken.append(f"node {node} can't listen on {shown_address((peers.host, port))} ({reason})")
    if taken:
        more = f" and {len(taken) - 1} more" if taken[1:] else ""
        text = f"{taken[0]}{more}; choose another peers.first_port or peers.host, or end what listens there"
        return listeners, Finding("ports", Verdict.STOP, text)
    return listeners, Finding("ports", Verdict.FINE, f"{first} to {last} are free for datagrams and connections")


def look_at_address(peers: PeersConfig, is_alone: bool, public: Address | None) -> Finding:
    """By what name this machine goes."""
    name = socket.gethostname()
    if is_alone:
        return Finding("address", Verdict.FINE, f"{name} at {peers.host}; all nodes are here")
    text = f"{name}, reached at {shown_address(public) if public else peers.host}"
    if peers.for_this_machine_only:
        return Finding("address", Verdict.NOTE, f"{text}, which no other machine can reach")
    return Finding("address", Verdict.FINE, f"{text}, listens on {peers.host}" if public else text)


def look_at_name(config: RunConfig, local: range) -> Finding:
    """Whether the run's folder can be made."""
    folder = Path(config.runs) / (config.name or "")

    def check() -> None:
        if config.name is not None and log_file(folder, local.start).exists():
            raise UserError(f"name: the folder {folder} holds a run already; choose another name or remove it")
        check_writable(folder, "runs")

    return judged("folder", str(folder) if config.name else f"{folder}, named after setting and time", check)


def check_writable(folder: Path, field: str) -> None:
    """UserError if nothing can be written in a folder, or it can't be made."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{field}: {there} can't be written")


def look_at_disk(config: RunConfig, schedule: Schedule, setting: str, local: range, every: list[Needs]) -> Finding:
    """What checkpoints need against what is free."""
    count, saved = checkpoint_bytes(config, schedule, setting, local, every)
    free = free_disk_bytes(Path(config.runs))
    text = f"{count * saved / GB:.1f} GB for {count} checkpoints, {free / GB:.1f} GB are free"
    return judged(
        "disk",
        text,
        lambda: check_enough(f"{count} checkpoints", count * saved, free, DISK_REMEDY),
        lambda: check_writable(user_path(config.data.cache, "data.cache"), "data.cache"),
    )


def look_at_memory(config: RunConfig, local: range, every: list[Needs]) -> Finding:
    """What `skippipe plan` estimates against what is free."""
    own = [needs for needs in every if needs.node in local]
    needed, free = memory_bytes(config.device, own), free_memory_bytes()
    text = f"{needed / GB:.1f} GB for {len(own)} nodes by skippipe plan, {free / GB:.1f} GB are free"
    return judged("memory", text, lambda: check_memory(config, own))


def look_at_text(data: DataConfig) -> Finding:
    """Whether the text can be had: its files read, or its dataset opened."""
    # Imported here: errors in arguments should not wait for datasets.
    from skippipe.data.corpus import Corpus
    from skippipe.data.hub import HubText

    try:
        text = HubText.find(data) if data.source == "hub" else Corpus(data)
    except UserError as error:
        return Finding("text", Verdict.STOP, str(error))
    return Finding("text", Verdict.FINE, f"data.source={data.source}: {text}")


def look_at_device(config: RunConfig) -> Finding:
    """Whether torch can compute, and compile, where it is asked to."""
    return judged("device", config.device, lambda: check_device(config.device, config.compile))
