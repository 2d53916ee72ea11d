"""Calls between processes that are no peers: whole messages, strangers outside, and a node that is only looked at."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import torch

from skippipe.transport.addresses import Address
from skippipe.transport.call import Call, Service, Switchboard, call, connect, knock, opened
from skippipe.transport.clocks import Clock
from skippipe.transport.guests import MOST_OF_A_NETWORK
from skippipe.transport.handshake import OPENING_BYTES, ClientHandshake, Introduction
from skippipe.transport.identity import AuthenticationError, WrongSecretError, node_id
from skippipe.transport.records import PART_BYTES
from skippipe.transport.run_identity import RunIdentity
from tests.transport.link_pair import SECRET, open_pair, receive

Take = Callable[[Call], Awaitable[None]]
Troubles = list[Exception]


@contextlib.asynccontextmanager
async def answering(take: Take, service: str = "test") -> AsyncIterator[tuple[Address, Troubles]]:
    """Somebody who answers; where, and what went wrong there."""
    listener, troubles = socket.create_server(("127.0.0.1", 0)), Troubles()
    listener.setblocking(False)
    board = Switchboard(Service(service, SECRET), take, lambda address, error: troubles.append(error))
    serving = asyncio.create_task(board.serve(listener))
    try:
        yield listener.getsockname(), troubles
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        listener.close()


async def echo(made: Call) -> None:
    while True:
        await made.send(*[part async for part in made.receive_parts()])


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, 3 * PART_BYTES + 7])
def test_messages_of_any_size_go_there_and_back(size: int) -> None:
    message = bytes(i % 251 for i in range(size))
    parts = [message[begin : begin + PART_BYTES] for begin in range(0, size, PART_BYTES)]

    async def talk() -> None:
        async with answering(echo) as (address, _):
            made = await call(address, Service("test", SECRET))
            for _ in range(2):
                await made.send_parts(parts)
                assert await made.receive(size) == message
            if size:
                await made.send_parts(parts)
                with pytest.raises(ConnectionError, match=f"more than {size - 1} bytes"):
                    await made.receive(size - 1)
            made.close()

    asyncio.run(talk())


@pytest.mark.parametrize(("name", "secret"), [("test", b"x" * 32), ("other", SECRET), ("test", None)])
def test_another_secret_and_another_service_are_hung_up_on_and_others_served(name: str, secret: bytes | None) -> None:
    async def talk() -> None:
        async with answering(echo) as (address, troubles):
            with pytest.raises(WrongSecretError, match="hangs up"):
                await call(address, Service(name, secret))
            junk = await connect(address, 5)
            junk.send(b"GET / HTTP/1.1".ljust(OPENING_BYTES))
            assert await asyncio.get_running_loop().sock_recv(junk, 10) == b""
            junk.close()
            made = await call(address, Service("test", SECRET))
            await made.send(b"still there")
            assert await made.receive(20) == b"still there"
            made.close()
            assert len(troubles) == 2
            assert isinstance(troubles[0], WrongSecretError) == (secret != SECRET)
            assert not isinstance(troubles[1], WrongSecretError)

    asyncio.run(talk())


def test_what_breaks_in_one_call_leaves_the_others() -> None:
    async def talk() -> None:
        async with answering(echo) as (address, troubles):
            first, second = [await call(address, Service("test", SECRET)) for _ in range(2)]
            first.connection.send(bytes(100))
            with pytest.raises(ConnectionError):
                await first.receive(10)
            await second.send(b"fine")
            assert await second.receive(10) == b"fine"
            second.close()
            assert [type(error) for error in troubles] == [AuthenticationError]

    asyncio.run(talk())


def test_strangers_of_one_address_do_not_hang_up_on_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skippipe.transport.call.INTRODUCTION_SECONDS", 600.0)

    async def talk() -> None:
        async with answering(echo) as (address, _):
            with socket.create_connection(address, source_address=("127.0.0.2", 0)) as slow:
                slow.setblocking(False)
                strangers = [await connect(address, 60) for _ in range(100)]
                last_to_leave = strangers[-MOST_OF_A_NETWORK - 1]
                assert await asyncio.get_running_loop().sock_recv(last_to_leave, 1) == b""
                service = Service("test", SECRET)
                await opened(slow, ClientHandshake(service.introduction(), service.identity, SECRET))
                for stranger in strangers:
                    stranger.close()

    asyncio.run(talk())


def test_a_node_that_is_knocked_at_takes_nobody_for_its_peer() -> None:
    with open_pair() as pair:
        address = pair.receiver.listeners.bound[0], pair.receiver.listeners.stream_port
        table = pair.receiver.membership.run.table
        me = Introduction(node_id(0), b"a session of mine", RunIdentity.of_table(table), Clock().identity)
        asyncio.run(knock(address, me, node_id(1), SECRET))
        for node, secret in ((0, SECRET), (1, b"x" * 32)):
            with pytest.raises(AuthenticationError):
                asyncio.run(knock(address, me, node_id(node), secret))
        assert not pair.receiver.streams.neighbours
        pair.sender.connect([1])
        pair.send(0, torch.ones(3))
        assert receive(pair.inbox, 0)[1].tolist() == [1] * 3
