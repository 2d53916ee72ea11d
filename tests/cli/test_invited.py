"""What a machine does that follows an invitation: it takes what it has not, and what it gets must be what was said."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skippipe.cli.invitation import Invitation
from skippipe.cli.invited import Invited, accept
from skippipe.config import DataConfig, RunConfig
from skippipe.data.batches import prepare
from skippipe.data.prepared import TokenFile
from skippipe.errors import UserError
from skippipe.fields import load_config
from skippipe.runtime.equal import equal_fields
from skippipe.runtime.offer import make_desk
from skippipe.transport.invitation import Desk
from skippipe.transport.links import Links
from tests.data.conftest import write_dataset, write_pretrained
from tests.end_to_end.conftest import free_ports, wait_for
from tests.small_schedule import small_schedule
from tests.transport.link_pair import SECRET
from tests.transport.test_hosting import node

FILES = {"schedule": b"{}", "tokenizer": b"a tokenizer", "tokens": b"some tokens"}
Follow = Callable[..., Invited]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Of a machine with nodes 0 to 2 of six."""
    (tmp_path / "there").mkdir()
    paths = {name: tmp_path / "there" / name for name in FILES}
    for name, data in FILES.items():
        paths[name].write_bytes(data)
    prepared = TokenFile(paths["tokenizer"], 300, paths["tokens"], 4, 1)
    config = load_config(RunConfig, None, ["iterations=7", "peers.host=127.0.0.1", "runs=/theirs"])
    return make_desk(config, "ca-partial", 8, "mine", prepared, paths["schedule"], range(3), 6)


@pytest.fixture
def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Follow]:
    """Follow an invitation to a node, with its secret's key at hand; whoever has followed one before leaves."""
    monkeypatch.setattr("skippipe.cli.invitation.derived", lambda secret: SECRET)

    opened: list[socket.socket] = []

    def follow(links: Links, *overrides: str) -> Invited:
        for connection in opened:
            connection.close()
        if links.desk is not None:
            desk = links.desk
            wait_for(lambda: not desk.claims)
        invitation = Invitation(("127.0.0.1", links.listeners.stream_port), b"any secret will do")
        invited = accept(invitation, range(3, 6), "ca-partial", 8, [f"data.cache={tmp_path}/cache", *overrides])
        opened.append(invited.connection)
        return invited

    yield follow
    for connection in opened:
        connection.close()


def test_what_comes_is_kept_under_its_hash_and_not_fetched_again(desk: Desk, follow: Follow, tmp_path: Path) -> None:
    with node(desk) as links:
        invited = follow(links, "threads=3")
        assert {name: path.read_bytes() for name, path in invited.files.items()} == FILES
        config = invited.config
        assert (config.iterations, config.threads, config.name, config.runs) == (7, 3, "mine", RunConfig().runs)
        bootstrap = (f"127.0.0.1:{links.listeners.stream_port}",)
        assert (config.peers.host, config.peers.bootstrap) == ("127.0.0.1", bootstrap)
        assert Path(config.schedule).parent == Path(str(config.data.tokenizer)).parent == tmp_path / "cache"
        assert not invited.has_begun
        # For as long as the connection lasts.
        assert invited.connection.fileno() >= 0
        assert desk.claims == [{3, 4, 5}]
        for path in desk.files.values():
            path.unlink()
        assert follow(links).files == invited.files


def test_a_file_that_is_not_what_was_said_is_not_taken(desk: Desk, follow: Follow, tmp_path: Path) -> None:
    with node(desk) as links:
        for changed in (b"A TOKENIZER", b"a tokenizer and more"):
            desk.files["tokenizer"].write_bytes(changed)
            with pytest.raises(UserError, match="the tokenizer that came is not the one that was described"):
                follow(links)
        assert not list((tmp_path / "cache").glob("tokenizer*"))
        desk.files["tokenizer"].unlink()
        with pytest.raises(UserError, match="hangs up"):
            follow(links)


def test_who_hangs_up_or_has_no_such_name_is_one_line(follow: Follow) -> None:
    with node(None) as links, pytest.raises(UserError, match="hangs up: the invitation's secret is wrong"):
        follow(links)
    for name in ("a..b", "nobody.invalid"):
        with pytest.raises(UserError, match=rf"--join: {name}:4000 can't be reached \(.*\); does the run"):
            accept(Invitation((name, 4000), b"any secret will do"), range(3, 6), "ca-partial", 8, [])


def test_a_given_port_and_those_that_a_router_forwards_stay(
    desk: Desk, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = free_ports(6)
    monkeypatch.setattr("skippipe.cli.invited.FIRST_PORT", first)
    with node(desk) as links, socket.create_server(("127.0.0.1", first + 3)):
        assert follow(links).config.peers.first_port > first
        assert follow(links, "peers.first_port=5000").config.peers.first_port == 5000
        peers = follow(links, "peers.advertise=203.0.113.5").config.peers
        assert (peers.first_port, peers.split_advertise()) == (first, ("203.0.113.5", first))


def test_a_stream_and_a_tokenizer_of_transformers_are_the_same_there(follow: Follow, tmp_path: Path) -> None:
    texts = write_dataset(tmp_path / "set")
    write_pretrained(tmp_path / "pretrained", [text for own in texts for text in own])
    data = DataConfig(
        source="hub", hub=str(tmp_path / "set"), tokenizer=str(tmp_path / "pretrained"), cache=str(tmp_path / "own")
    )
    config, prepared = RunConfig(data=data), prepare(data)
    small_schedule().save(tmp_path / "schedule.json")
    desk = make_desk(config, "ca-partial", 8, "mine", prepared, tmp_path / "schedule.json", range(3), 6)
    with node(desk) as links:
        invited = follow(links)
    theirs = invited.prepare(invited.config.data)
    assert theirs.tokenizer.is_relative_to(tmp_path / "cache")
    assert equal_fields(small_schedule(), "ca-partial", invited.config, theirs) == equal_fields(
        small_schedule(), "ca-partial", config, prepared
    )
