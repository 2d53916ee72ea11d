"""A newcomer's connection as a node serves it: nodes are kept for as long as it lasts, and nobody may hold it up."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from skippipe.cli.invited import ask
from skippipe.transport import hosting
from skippipe.transport.connected import RefusedError
from skippipe.transport.handshake import ANSWER_BYTES
from skippipe.transport.hosting import serve_newcomer
from skippipe.transport.identity import AuthenticationError
from skippipe.transport.inbox import Inbox
from skippipe.transport.invitation import Desk, NewcomerEnd
from skippipe.transport.links import Links
from skippipe.transport.membership import Listeners, Membership
from skippipe.transport.sockets import receive, receive_record
from tests.transport.link_pair import LIMITS

SECRET = b"s" * 32
Behaviour = Callable[[socket.socket, NewcomerEnd], Awaitable[None]]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    (tmp_path / "file").write_bytes(bytes(3_000_000))
    return Desk(b"document", {"file": tmp_path / "file"}, 6, range(3))


def served(desk: Desk, behave: Behaviour, secret: bytes = SECRET) -> bool:
    """Serve a newcomer that behaves so and then closes; whether it has proved the secret. Raises what ends it."""
    proved: list[bool] = []

    async def both() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            theirs = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
        for end in (ours, theirs):
            end.setblocking(False)
        newcomer = NewcomerEnd(secret)
        opening = newcomer.opening()
        serving = asyncio.create_task(
            serve_newcomer(ours, opening, desk, SECRET, (), lambda: None, lambda: proved.append(True))
        )
        try:
            await behave(theirs, newcomer)
        finally:
            theirs.close()
            try:
                await serving
            finally:
                ours.close()

    asyncio.run(both())
    return bool(proved)


async def arrive(connection: socket.socket, newcomer: NewcomerEnd, nodes: range = range(3, 6)) -> None:
    """Get the offer."""
    request = newcomer.ask(await receive(connection, ANSWER_BYTES), nodes)
    await asyncio.get_running_loop().sock_sendall(connection, request)
    newcomer.described(*await receive_record(connection))


def test_nodes_are_kept_until_the_newcomer_goes(desk: Desk) -> None:
    kept: list[set[int]] = []

    async def fetch_and_go(connection: socket.socket, newcomer: NewcomerEnd) -> None:
        await arrive(connection, newcomer)
        await asyncio.get_running_loop().sock_sendall(connection, newcomer.wish(["file"]))
        size = 0
        while size < 3_000_000:
            size += len(newcomer.part(*await receive_record(connection)))
        kept.extend(desk.claims)

    assert served(desk, fetch_and_go)
    assert kept == [{3, 4, 5}]
    assert desk.claims == []


def test_a_newcomer_that_goes_in_the_middle_of_a_file_keeps_nothing(desk: Desk) -> None:
    async def leave_early(connection: socket.socket, newcomer: NewcomerEnd) -> None:
        await arrive(connection, newcomer)
        await asyncio.get_running_loop().sock_sendall(connection, newcomer.wish(["file"]))
        await receive_record(connection)

    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        served(desk, leave_early)
    assert desk.claims == []


@pytest.mark.parametrize("says", ["nothing", "who it is", "what it asks for"])
def test_a_newcomer_that_falls_silent_is_closed(desk: Desk, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANSWER_SECONDS", "LOOK_SECONDS"):
        monkeypatch.setattr(hosting, name, 0.3)

    async def fall_silent(connection: socket.socket, newcomer: NewcomerEnd) -> None:
        if says != "nothing":
            said = newcomer.ask(await receive(connection, ANSWER_BYTES), range(3, 6))
            whole = says == "what it asks for"
            await asyncio.get_running_loop().sock_sendall(connection, said if whole else said[:-1])
        # Longer than it may: the one who serves has ended by then.
        await asyncio.sleep(1.0)

    with pytest.raises(TimeoutError):
        served(desk, fall_silent)
    assert desk.claims == []


def test_a_stranger_keeps_nothing_and_is_trusted_in_nothing(desk: Desk) -> None:
    with pytest.raises(AuthenticationError):
        served(desk, lambda connection, newcomer: asyncio.sleep(0), b"t" * 32)
    assert desk.claims == []


@contextlib.contextmanager
def node(desk: Desk | None, joins: bool = False) -> Iterator[Links]:
    """Node 0 of six, started."""
    inbox = Inbox({}, lambda sender: 0.0)
    listeners = Listeners.bind("127.0.0.1")
    links = Links(Membership(0, 6, SECRET), listeners, [], LIMITS, inbox, joins=joins, desk=desk)
    links.start()
    try:
        yield links
    finally:
        links.close()


def come_to(links: Links, secret: bytes = SECRET) -> tuple[bool, bytes]:
    """What a newcomer is told at a node; EOFError if that hangs up."""
    with socket.create_connection(("127.0.0.1", links.listeners.stream_port), 60) as connection:
        return ask(connection, NewcomerEnd(secret), range(3, 6))


def test_a_node_tells_newcomers_on_the_port_of_its_links(desk: Desk) -> None:
    with node(desk) as links:
        assert come_to(links) == (False, b"document")
        with pytest.raises(EOFError):
            come_to(links, b"t" * 32)
        links.see([0, 1, 2])
        assert come_to(links) == (True, b"document")


def test_a_node_that_joins_others_tells_nobody_before_it_is_one_of_them(desk: Desk) -> None:
    with node(desk, joins=True) as links:
        with pytest.raises(RefusedError, match="about to join the run itself"):
            come_to(links)
        links.see([0, 1, 2])
        assert come_to(links) == (True, b"document")


def test_a_node_without_a_desk_takes_newcomers_for_strangers() -> None:
    with node(None) as links, pytest.raises(EOFError):
        come_to(links)
