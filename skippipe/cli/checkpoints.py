"""What lies on this machine of a run's checkpoints; and bringing a whole one here, if machines share no disk.

Start --serve on the machines that have stages of it, and then --gather on the one that is to have all. Neither is
needed to go on with the run: nodes get what they lack from one another.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from skippipe.config import RunConfig
from skippipe.errors import UserError
from skippipe.fields import load_config
from skippipe.peers import PeersConfig, split_address
from skippipe.report.run_folder import CONFIG
from skippipe.transport.addresses import Address, family_of, shown_address
from skippipe.transport.identity import cluster_secret

if TYPE_CHECKING:
    from skippipe.model.parts import Part
    from skippipe.runtime.catalogue import Found
    from skippipe.transport.call import Service

logger = logging.getLogger(__name__)

MB = 1e6
HERE = -1
"""This machine among those that have files; the others are numbered as they were named."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A run, whether to give or to get, and where from."""
    parser.add_argument("path", metavar="RUN", type=Path, help="folder of a run, or of one of its checkpoints")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--serve", action="store_true", help="let other machines gather what is here, until Ctrl-C")
    way.add_argument("--gather", action="store_true", help="bring the newest checkpoint here that is complete over all")
    parser.add_argument(
        "where",
        nargs="*",
        default=[],
        metavar="HOST:PORT | peers.FIELD=VALUE",
        help="machines that serve (by default those of peers.bootstrap), and fields of peers, by default those of the"
        " run's config.json",
    )


def run(arguments: argparse.Namespace) -> int:
    """List, serve or gather."""
    named = [text for text in arguments.where if "=" not in text]
    peers = peers_of(arguments.path, [text for text in arguments.where if "=" in text])
    if named and not arguments.gather:
        raise UserError(f"{named[0]}: addresses are for --gather; fields are written peers.FIELD=VALUE")
    if not arguments.serve and not arguments.gather:
        show(arguments.path)
        return 0
    # Imported here: errors in arguments should not wait for torch.
    from skippipe.runtime.gathering import SERVICE
    from skippipe.transport.call import Service

    secret = cluster_secret(peers.secret_file, alone=False) if peers.authenticate else None
    service = Service(SERVICE, secret)
    if arguments.serve:
        serve(arguments.path, peers, service)
    else:
        gather(arguments.path, machines(peers, named, run_folder(arguments.path)), service)
    return 0


def run_folder(path: Path) -> Path:
    """The run's folder, given that or a checkpoint's."""
    from skippipe.model.checkpoint import done_iterations

    return path if done_iterations(path.absolute()) is None else path.absolute().parent.parent


def peers_of(path: Path, overrides: list[str]) -> PeersConfig:
    """How the run's nodes listened here, and what else was said; UserError if a field is wrong."""
    file = run_folder(path) / CONFIG
    return load_config(RunConfig, file if file.exists() else None, overrides).peers


def machines(peers: PeersConfig, named: list[str], run: Path) -> dict[int, Address]:
    """Addresses of machines that serve, as they were named or else as nodes meet; UserError if there are none."""
    from skippipe.runtime.endpoint import resolved

    what = "HOST:PORT" if named else "peers.bootstrap"
    found = [resolved(*split_address(text, what), what, family_of(peers.host)) for text in named or peers.bootstrap]
    if not named:
        # Of the machine that others meet at, which is this one.
        found = [address for address in found if address != (peers.host, own_port(peers, run))]
    if not found:
        raise UserError("--gather: name the machines that serve, as they say when they begin, such as 10.0.0.1:4000")
    return dict(enumerate(found))


def own_port(peers: PeersConfig, run: Path) -> int:
    """That of the first node that ran here, which is free now; 0 if ports were chosen."""
    numbers = [path.stem.removeprefix("node-") for path in run.glob("node-*.log")]
    first = min(map(int, filter(str.isdecimal, numbers)), default=0)
    return peers.first_port + first if peers.first_port else 0


def show(path: Path) -> None:
    """Print a line for each checkpoint of which something is here."""
    from skippipe.model.checkpoint import folders_up_to
    from skippipe.model.parts import read_part

    parts = [part for folder in folders_up_to(path) if (part := read_part(folder)) is not None]
    if not parts:
        raise UserError(f"{path}: nothing is here of any checkpoint")
    for part in parts:
        size = sum(file.stat().st_size for file in part.folder.glob("*"))
        print(f"{part.folder}  {size / MB:.1f} MB  {stages_of(part)}")


def stages_of(part: Part) -> str:
    """What is here of a checkpoint, in words."""
    if part.is_whole:
        return "complete"
    return f"stage {', '.join(map(str, part.stages))} of 0 to {part.meta.stages - 1}"


def serve(path: Path, peers: PeersConfig, service: Service) -> None:
    """Answer whoever gathers, until Ctrl-C; UserError if nothing is here, or the port is taken."""
    from skippipe.model.parts import parts_in
    from skippipe.runtime.gathering import Source
    from skippipe.transport.call import Switchboard

    parts = parts_in(path)
    if not parts:
        raise UserError(f"{path}: nothing is here of any checkpoint")
    port = own_port(peers, run_folder(path))
    try:
        listener = socket.create_server((peers.host, port), family=family_of(peers.host))
    except OSError as error:
        where = shown_address((peers.host, port))
        reason = os.strerror(error.errno or 0)
        raise UserError(f"peers.first_port: can't listen on {where} ({reason}); choose another") from None
    listener.setblocking(False)
    address = shown_address((peers.host, listener.getsockname()[1]))
    print(f"serving at {address} until Ctrl-C; on the machine that is to have all:")
    print(f"  skippipe checkpoints {path} --gather {address}")
    for part in parts:
        print(f"iteration {part.meta.iteration}: {stages_of(part)}", flush=True)
    source = Source(path, lambda name, size: print(f"sent {name}, {size / MB:.1f} MB", flush=True))

    with listener:
        asyncio.run(Switchboard(service, source.take, teller_of_trouble()).serve(listener))


def teller_of_trouble() -> Callable[[Address, Exception], None]:
    """What says who called in vain, and why: in few lines, for strangers may call as often as they like."""
    from skippipe.transport.call import reason_of
    from skippipe.transport.guests import BoundedLog

    log = BoundedLog(logger)

    def tell(caller: Address, error: Exception) -> None:
        log.warning("a call from %s ended: %s", shown_address(caller), reason_of(error))

    return tell


def gather(path: Path, others: Mapping[int, Address], service: Service) -> None:
    """Fetch all that is missing here of the newest checkpoint that is complete over all; UserError says why not."""
    from skippipe.model.checkpoint import read_checkpoint
    from skippipe.model.parts import folder_beside
    from skippipe.runtime.catalogue import newest_whole
    from skippipe.runtime.gathering import ask, merged, offered

    offers = {HERE: offered(path), **{place: asyncio.run(ask(other, service)) for place, other in others.items()}}
    found = newest_whole(
        merged(offers), lambda place: "this machine" if place == HERE else shown_address(others[place])
    )
    folder = folder_beside(path, found.iteration)
    for offer in offers[HERE]:
        if (offer.iteration, offer.identity == found.identity) == (found.iteration, False):
            raise UserError(f"{folder}: of another run than what {shown_address(others[0])} has; move it away")
    size = 0
    for name, holders in sorted(found.holders.items()):
        if HERE not in holders:
            size += holders[min(holders)]
            bring(found, name, folder, others, service)
    if read_checkpoint(folder) is None:
        raise UserError(f"{folder}: is still not complete")
    print(f"{folder} is complete; {size / MB:.1f} MB came from other machines")


def bring(found: Found, name: str, folder: Path, others: Mapping[int, Address], service: Service) -> None:
    """Fetch one file, which is there as a whole or not at all; UserError if it can't be had or written."""
    from skippipe.model.checkpoint import write_durably
    from skippipe.runtime.gathering import fetch

    holders = found.holders[name]
    place = min(holders)
    file = folder / name
    print(f"{name}, {holders[place] / MB:.1f} MB, from {shown_address(others[place])}", flush=True)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_durably(file, lambda path: asyncio.run(fetch(others[place], service, found, name, holders[place], path)))
    except OSError as error:
        raise UserError(f"{file}: can't be written ({error.strerror})") from None
