"""An invitation's text, what --host sets, and what a machine may say for itself that follows one."""

from __future__ import annotations

import argparse
import dataclasses
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from skippipe.cli import hosting
from skippipe.cli.entry import Entry, enter
from skippipe.cli.hosting import host_run, lines, outward_address
from skippipe.cli.invitation import Invitation
from skippipe.cli.invited import Invited, check_overrides, free_first_port, is_there, keep
from skippipe.config import RunConfig
from skippipe.errors import UserError
from skippipe.runtime.offer import AT_HOME, Note, Offer, holds, travelling
from skippipe.transport.identity import SECRET_VARIABLE, cluster_secret
from tests.end_to_end.conftest import free_ports

SECRET = b"a secret of a run that others join"


def arguments(*overrides: str, **others: object) -> argparse.Namespace:
    """Of a command."""
    known = {"setting": "ca-partial", "samples": "8", "resume": None, "evaluate": None, "host": False, "join": None}
    return argparse.Namespace(overrides=list(overrides), **{**known, **others})


@pytest.fixture(autouse=True)
def _no_secret_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)


@pytest.mark.parametrize("host", ["10.0.0.1", "fd00::1", "host.example"])
@pytest.mark.parametrize("secret", [SECRET, bytes(range(256)), "päss#wörd %41+/=&".encode() * 2])
def test_what_is_shown_is_what_is_read(host: str, secret: bytes) -> None:
    invitation = Invitation((host, 4000), secret)
    assert Invitation.parse(invitation.shown) == invitation
    assert invitation.shown.isascii()
    assert not set(invitation.shown) & set(" \t\n'\"\\$`!*?<>|;()")
    assert secret.hex() not in repr(invitation)
    assert repr(secret) not in repr(invitation)


def test_an_invitation_is_written_so() -> None:
    shown = "skippipe://10.0.0.1:4000/#" + "x" * 43
    assert Invitation(("10.0.0.1", 4000), b"x" * 43).shown == shown
    assert Invitation.parse(shown.replace("/#", "#")).address == ("10.0.0.1", 4000)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://10.0.0.1:4000/#" + "x" * 43, "begins with skippipe://"),
        ("skippipe://10.0.0.1:4000/" + "x" * 43, "needs an address|has a # before its secret"),
        ("skippipe://10.0.0.1:4000/#", "a secret of at least 16 bytes, not 0"),
        ("skippipe://10.0.0.1:4000/#%41%42", "a secret of at least 16 bytes, not 2"),
        ("skippipe://10.0.0.1/#" + "x" * 43, "an invitation needs an address like"),
        ("skippipe:///#" + "x" * 43, "an invitation needs an address like"),
        ("skippipe://10.0.0.1:99999/#" + "x" * 43, "an invitation needs an address like"),
        ("skippipe://fd00::1:4000/#" + "x" * 43, "an invitation needs an address like"),
        ("://#" + "x" * 43, "begins with skippipe://"),
    ],
)
def test_what_is_no_invitation_is_refused_and_its_secret_not_shown(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        enter(arguments(join=text), range(10, 20), 8)
    assert "xxxx" not in str(refused.value)
    assert str(refused.value).startswith("--join")


def test_a_secret_among_the_arguments_is_overwritten() -> None:
    code = (
        "import sys; from pathlib import Path; from skippipe.cli.invitation import hide_argument\n"
        "hide_argument(sys.argv[1].partition('#')[2]); hide_argument('not there at all')\n"
        "print(Path('/proc/self/cmdline').read_bytes())"
    )
    command = [sys.executable, "-c", code, "skippipe://10.0.0.1:4000/#aS3cret", "last"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "aS3cret" not in shown
    assert "skippipe://10.0.0.1:4000/#*******\\x00last\\x00" in shown


def test_a_host_is_set_up_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosting, "outward_address", lambda: "10.0.0.1")
    config, invitation = host_run(arguments("iterations=3"), 0)
    peers = config.peers
    assert (peers.host, peers.first_port, peers.bootstrap) == ("10.0.0.1", 4000, ("10.0.0.1:4000",))
    assert peers.connect_seconds == hosting.PATIENCE_SECONDS
    assert config.iterations == 3
    assert config.schedule == "original-20-nodes", "default.yaml is read as always"
    assert invitation.address == ("10.0.0.1", 4000)
    others = host_run(arguments(), 0)[1]
    assert invitation.secret != others.secret
    assert len(invitation.secret) >= 43


def test_what_is_given_to_a_host_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosting, "outward_address", lambda: "10.0.0.1")
    (tmp_path / "run.yaml").write_text("peers: {host: 127.0.0.1, first_port: 5000}\n")
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "secret").chmod(0o600)
    given = (str(tmp_path / "run.yaml"), f"peers.secret_file={tmp_path}/secret", "peers.connect_seconds=5")
    config, invitation = host_run(arguments(*given), 10)
    assert (config.peers.host, config.peers.first_port) == ("127.0.0.1", 5000)
    assert config.peers.connect_seconds == 5
    # Of its first node.
    assert invitation.address == ("127.0.0.1", 5010)
    assert invitation.secret == SECRET
    assert invitation.key == cluster_secret(f"{tmp_path}/secret", alone=False)
    monkeypatch.setenv(SECRET_VARIABLE, "another secret, of the environment")
    assert host_run(arguments(), 0)[1].secret == b"another secret, of the environment"


def test_a_secret_that_is_too_short_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, "too short")
    with pytest.raises(UserError, match="the cluster secret must have at least 16 bytes, not 9"):
        host_run(arguments(), 0)


def test_others_are_told_the_address_at_which_they_reach_a_host() -> None:
    behind_a_router = ("peers.host=0.0.0.0", "peers.advertise=203.0.113.5:14000")
    config, invitation = host_run(arguments(*behind_a_router), 10)
    assert invitation.where == "203.0.113.5:14010"
    assert config.peers.bootstrap == ("203.0.113.5:14010",)
    assert host_run(arguments("peers.bootstrap=['10.0.0.9:4000']"), 0)[0].peers.bootstrap == ("10.0.0.9:4000",)


@pytest.mark.parametrize(
    ("overrides", "others", "said"),
    [
        (["peers.authenticate=false"], {}, "peers.authenticate: --host invites under a secret"),
        (["peers.first_port=0"], {}, "peers.first_port: --host needs ports"),
        ([], {"evaluate": Path("runs/mine")}, "leave one of --host and --evaluate out"),
    ],
)
def test_what_a_host_can_not_do_is_refused(overrides: list[str], others: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        host_run(arguments(*overrides, **others), 0)


def test_the_address_is_one_of_this_machine() -> None:
    found = outward_address()
    if found is not None:
        with socket.socket(socket.AF_INET6 if ":" in found else socket.AF_INET) as probe:
            probe.bind((found, 0))


def test_the_lines_for_others_name_every_range_that_is_missing() -> None:
    invitation = Invitation(("10.0.0.1", 4000), b"x" * 43)
    end = f"ca-partial 8 --join {invitation.shown}"
    assert lines(invitation, arguments(), 20, range(10), 600).splitlines()[1:] == [f"./run.sh 10 20 {end}"]
    both = lines(invitation, arguments(), 20, range(5, 15), 600).splitlines()
    assert both[1:] == [f"./run.sh 0 5 {end}", f"./run.sh 15 20 {end}"]
    assert "within 600 s" in both[0]
    resumed = lines(invitation, arguments(resume=Path("runs/mine")), 20, range(10), 600)
    assert f"./run.sh 10 20 ca-partial 8 --resume runs/mine --join {invitation.shown}" in resumed


@pytest.mark.parametrize(
    "text", ["device=cuda", "threads=2", "runs=/data/runs", "data.cache=/data", "peers.host=10.0.0.2", "name=mine"]
)
def test_what_concerns_one_machine_may_be_given_beside_an_invitation(text: str) -> None:
    check_overrides([text])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("iterations=100", "iterations: comes with the invitation"),
        ("model.d_model=128", "model.d_model: comes with the invitation"),
        ("schedule=mine.json", "schedule: comes with the invitation"),
        ("peers.bootstrap=[]", "peers.bootstrap: comes with the invitation"),
        ("peers.authenticate=false", "peers.authenticate: comes with the invitation"),
        ("mine.yaml", "mine.yaml: an invitation brings the configuration"),
    ],
)
def test_what_must_be_equal_may_not(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_overrides(["device=cpu", text])


def test_join_alone_may_stand_before_an_override(tmp_path: Path) -> None:
    config, entry = enter(arguments("iterations=7", join="name=mine"), range(3, 4), 2)
    assert (config.name, config.iterations) == ("mine", 7)
    assert entry.joins
    assert entry.invitation is None
    assert not enter(arguments(), range(3, 4), 2)[1].joins
    with pytest.raises(UserError, match="an evaluation can't be joined"):
        enter(arguments(join="", evaluate=tmp_path), range(3, 4), 2)


def test_ports_that_are_taken_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_ports(6)
    monkeypatch.setattr("skippipe.cli.invited.FIRST_PORT", first)
    assert free_first_port("127.0.0.1", range(3)) == first
    with socket.create_server(("127.0.0.1", first + 2)):
        chosen = free_first_port("127.0.0.1", range(3))
        assert chosen > first
        assert free_first_port("127.0.0.1", range(2)) == first
    with pytest.raises(UserError, match=r"peers.host: 192.0.2.1 is no address of this machine"):
        free_first_port("192.0.2.1", range(3))


def test_a_file_that_came_is_taken_again_only_if_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "tokens.bin"
    keep(path, b"tokens")
    note = Note.of(path)
    assert is_there(path, note)
    assert [file.name for file in path.parent.iterdir()] == ["tokens.bin"]
    path.write_bytes(b"tokenz")
    assert not is_there(path, note)
    path.write_bytes(b"tokens and more")
    assert not is_there(path, note)
    with pytest.raises(UserError, match=r"data.cache: /proc/nowhere: can't be written"):
        keep(Path("/proc/nowhere/tokens.bin"), b"tokens")


def test_the_python_that_counts_is_of_the_machine_that_made_the_tokens() -> None:
    there = {"python": "3.99.0", "schedule": Note(1, "0" * 64), "tokenizer": Note(1, "0" * 64)}
    with socket.socket() as connection:
        for tokens, python in ((Note(1, "0" * 64), "3.99.0"), (Note(), None)):
            invited = Invited(RunConfig(), Offer(**there, tokens=tokens), False, {}, connection)
            assert Entry(invited=invited).python == python
    assert Entry().python is None


def test_what_concerns_one_machine_does_not_travel() -> None:
    everything = json.loads(json.dumps(dataclasses.asdict(RunConfig())))
    assert all(holds(everything, name) for name in AT_HOME), "a field that there is not"
    travels = travelling(everything)
    assert not any(holds(travels, name) for name in AT_HOME)
    assert travels["iterations"] == RunConfig().iterations
    assert travels["peers"]["silence_seconds"] == RunConfig().peers.silence_seconds
