"""`--join INVITATION`: fetches what a run's nodes need from one of them, and chooses what concerns this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skippipe.cli.hosting import FIRST_PORT
from skippipe.cli.invitation import Invitation
from skippipe.config import DataConfig, RunConfig
from skippipe.data.tokenizer import PRETRAINED, PRETRAINED_CONFIG
from skippipe.errors import UserError
from skippipe.fields import load_config, user_path
from skippipe.runtime.equal import OWN
from skippipe.runtime.offer import SCHEDULE, TOKENIZER, TOKENIZER_CONFIG, TOKENS, Note, Offer, read_document
from skippipe.transport.connected import RefusedError
from skippipe.transport.handshake import ANSWER_BYTES
from skippipe.transport.identity import AuthenticationError
from skippipe.transport.invitation import NewcomerEnd, UnintelligibleError
from skippipe.transport.membership import Listeners
from skippipe.transport.records import HEAD, TAG_BYTES, RecordKind, record_shape
from skippipe.transport.run_identity import differs

if TYPE_CHECKING:
    from skippipe.data.prepared import Prepared

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 20.0
"""The node may be about to start."""
COME_WITH_IT = {"schedule", "data.tokenizer", "peers.bootstrap", "peers.secret_file", "peers.authenticate"}
ENDINGS = {SCHEDULE: ".json", TOKENIZER: ".model", TOKENIZER_CONFIG: ".json", TOKENS: ".bin"}
DIGITS = 16
PORT_STEP, PORT_TRIES = 100, 20


@dataclass(frozen=True)
class Invited:
    """What has come with an invitation."""

    config: RunConfig
    offer: Offer
    has_begun: bool
    """Whether the run goes on already."""
    files: dict[str, Path]
    """By name; without tokens this machine has to make them from the text, or to stream it."""
    connection: socket.socket
    """While it is open the nodes are kept for this machine."""

    def prepare(self, config: DataConfig) -> Prepared:
        """The text that all train on, as skippipe.data.batches.prepare gives it."""
        from skippipe.data.batches import prepare, prepared_from

        if TOKENS not in self.files:
            return prepare(config)
        assert config.tokenizer is not None
        return prepared_from(Path(config.tokenizer), self.files[TOKENS], config.validation_fraction)


def accept(invitation: Invitation, local: range, setting: str, samples: int, overrides: Sequence[str]) -> Invited:
    """Follow an invitation with the nodes `local`; `overrides` are of fields that concern this machine.

    UserError if it can't be: nobody is there, the secret is wrong, nodes are taken, the code is another one, or
    something in its files, or this machine's, is wrong.
    """
    check_overrides(overrides)
    where = invitation.where
    end = NewcomerEnd(invitation.key)
    with contextlib.ExitStack() as stack:
        with refused(where):
            connection = stack.enter_context(connect(invitation))
            has_begun, document = ask(connection, end, local)
        offer, fields = read_document(document, where)
        check_line(where, offer, setting, samples)
        config = own_config(fields, invitation, offer, local, connection, overrides)
        cache = user_path(config.data.cache, "data.cache")
        files = places(offer, cache)
        missing = [name for name, path in files.items() if not is_there(path, offer.files[name])]
        with refused(where):
            connection.sendall(end.wish(missing))
            for name in missing:
                keep(files[name], receive_file(connection, end, offer.files[name], name))
        stack.pop_all()
    tokenizer = files[TOKENIZER].parent if TOKENIZER_CONFIG in files else files[TOKENIZER]
    data = dataclasses.replace(config.data, tokenizer=str(tokenizer))
    config = dataclasses.replace(config, schedule=str(files[SCHEDULE]), data=data)
    return Invited(config, offer, has_begun, files, connection)


def places(offer: Offer, cache: Path) -> dict[str, Path]:
    """Where the files of an offer are kept, named by what is in them; a tokenizer's of transformers' together."""
    found = {name: cache / f"{name}-{note.sha256[:DIGITS]}{ENDINGS[name]}" for name, note in offer.files.items()}
    if TOKENIZER_CONFIG in found:
        folder = cache / f"tokenizer-{offer.tokenizer.sha256[:DIGITS]}-{offer.tokenizer_config.sha256[:DIGITS]}"
        found |= {TOKENIZER: folder / PRETRAINED, TOKENIZER_CONFIG: folder / PRETRAINED_CONFIG}
    return found


def check_overrides(overrides: Sequence[str]) -> None:
    """UserError for what an invitation brings itself."""
    for text in overrides:
        name, mark, _ = text.partition("=")
        if not mark:
            raise UserError(f"{name}: an invitation brings the configuration; leave the file out")
        if name in COME_WITH_IT or not (name in OWN or name.startswith("peers.")):
            raise UserError(f"{name}: comes with the invitation and is the same on all machines; leave it out")


@contextlib.contextmanager
def refused(where: str) -> Iterator[None]:
    """Turn what ends a conversation into a UserError that says what to look at."""
    try:
        yield
    except RefusedError as error:
        raise UserError(f"--join: {where} says: {error}") from None
    except (AuthenticationError, UnintelligibleError) as error:
        raise UserError(f"--join: {where} is no node that this invitation is of ({error})") from None
    except TimeoutError:
        raise UserError(f"--join: {where} does not answer; is the port forwarded, does a firewall let it in?") from None
    except EOFError:
        raise UserError(
            f"--join: {where} hangs up: the invitation's secret is wrong or of a run that has ended,"
            " or no node of the same version is there"
        ) from None
    except (OSError, UnicodeError) as error:
        # A name with a part that no name may have is the latter.
        why = getattr(error, "strerror", None) or error
        raise UserError(f"--join: {where} can't be reached ({why}); does the run that invites go on?") from None


def connect(invitation: Invitation) -> socket.socket:
    """A connection to the node that invites."""
    connection = socket.create_connection(invitation.address, CONNECT_SECONDS)
    connection.settimeout(ANSWER_SECONDS)
    return connection


def ask(connection: socket.socket, end: NewcomerEnd, local: range) -> tuple[bool, bytes]:
    """Get nodes: whether the run has begun, and the document."""
    connection.sendall(end.opening())
    connection.sendall(end.ask(receive(connection, ANSWER_BYTES), local))
    return end.described(*receive_record(connection))


def receive(connection: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes; EOFError if the other end closes before."""
    data = bytearray()
    while len(data) < size:
        try:
            part = connection.recv(size - len(data))
        except ConnectionError:
            part = b""
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def receive_record(connection: socket.socket) -> tuple[RecordKind, bytes, memoryview]:
    """Kind, head, and sealed content of the next record."""
    head = receive(connection, HEAD.size)
    kind, size = record_shape(head)
    return kind, head, memoryview(receive(connection, size + TAG_BYTES))


def receive_file(connection: socket.socket, end: NewcomerEnd, note: Note, name: str) -> bytes:
    """A file's contents; UnintelligibleError if they are not those that were described."""
    data = bytearray()
    while len(data) < note.bytes:
        data += end.part(*receive_record(connection))
    if len(data) > note.bytes or hashlib.sha256(data).hexdigest() != note.sha256:
        raise UnintelligibleError(f"the {name} that came is not the one that was described")
    return bytes(data)


def is_there(path: Path, note: Note) -> bool:
    """Whether the file came earlier, and still is what it was."""
    return path.is_file() and path.stat().st_size == note.bytes and Note.of(path) == note


def keep(path: Path, data: bytes) -> None:
    """Write a file that came, as a whole or not at all; UserError if it can't be."""
    written = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        written.write_bytes(data)
        written.replace(path)
    except OSError as error:
        raise UserError(f"data.cache: {path.parent}: can't be written ({error.strerror})") from None
    finally:
        written.unlink(missing_ok=True)


def check_line(where: str, offer: Offer, setting: str, samples: int) -> None:
    """UserError if SETTING or SAMPLES are not the run's."""
    ours = {"SETTING": (setting, offer.setting), "SAMPLES": (samples, offer.samples)}
    names = [f"{name} ({here} here, {there} there)" for name, (here, there) in ours.items() if here != there]
    if names:
        raise UserError(f"--join: {differs(where, names)}; take the line as --host printed it")


def own_config(
    fields: dict[str, Any],
    invitation: Invitation,
    offer: Offer,
    local: range,
    connection: socket.socket,
    overrides: Sequence[str],
) -> RunConfig:
    """The run's configuration with what concerns this machine, but for the paths of what came."""
    host = connection.getsockname()[0]
    own = {"host": host, "first_port": FIRST_PORT, "bootstrap": [invitation.where]}
    peers = fields.get("peers")
    base = {**fields, "name": offer.name, "peers": {**(peers if isinstance(peers, dict) else {}), **own}}
    config = load_config(RunConfig, None, overrides, base)
    # Ports that are given, or that a router forwards.
    if any(text.startswith(("peers.first_port=", "peers.advertise=")) for text in overrides):
        return config
    first_port = free_first_port(config.peers.host, local)
    return dataclasses.replace(config, peers=dataclasses.replace(config.peers, first_port=first_port))


def free_first_port(host: str, local: range) -> int:
    """A first port with which these nodes can listen; UserError if there is none to be found."""
    reason: OSError | None = None
    for first_port in range(FIRST_PORT, FIRST_PORT + PORT_STEP * PORT_TRIES, PORT_STEP):
        try:
            for node in local:
                Listeners.bind(host, first_port + node).close()
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise UserError(f"peers.host: {host} is no address of this machine") from None
            reason = error
            continue
        return first_port
    assert reason is not None
    raise UserError(f"peers.first_port: no free ports were found on {host} ({reason.strerror}); give one")
