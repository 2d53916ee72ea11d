"""The doctor's table: what would stop a run on this machine, in one line each, and what would not."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from skippipe.__main__ import main
from skippipe.cli.machine import Verdict, look_at_versions, versions
from skippipe.cli.ways import judge, told
from skippipe.transport.addresses import Address
from skippipe.transport.identity import SECRET_VARIABLE
from skippipe.transport.membership import Listeners
from skippipe.transport.probe import Probe, Way, Word
from skippipe.transport.run_identity import RunIdentity
from tests.end_to_end.conftest import free_ports
from tests.small_schedule import small_schedule

OK, NOTE, STOP = Verdict.FINE, Verdict.NOTE, Verdict.STOP
Check = Callable[..., tuple[int, dict[str, tuple[str, str]]]]


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Check:
    """`skippipe check` with the small schedule and these arguments: exit code, and verdict and text of each line."""
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)
    small_schedule().save(tmp_path / "schedule.json")

    def run(*arguments: str) -> tuple[int, dict[str, tuple[str, str]]]:
        fields = [
            f"schedule={tmp_path}/schedule.json",
            "model.context=32",
            "data.vocabulary=300",
            f"runs={tmp_path}/runs",
        ]
        code = main(["check", *fields, f"data.cache={tmp_path}/cache", *arguments, "--wait", "1"])
        lines = [re.split(" {2,}", line, maxsplit=2) for line in capsys.readouterr().out.splitlines()]
        return code, {what: (verdict, text) for what, verdict, text in lines}

    return run


def test_a_machine_that_can_run_all_is_told_so(check: Check, tmp_path: Path) -> None:
    code, lines = check("name=fine")
    assert code == 0
    assert {verdict for verdict, _ in lines.values()} == {"ok"}
    points = "versions run text folder disk device memory ports address secret peers"
    assert list(lines) == points.split()
    assert lines["run"][1].startswith("nodes 0 to 5 of 6, baseline of ")
    assert lines["folder"][1] == str(tmp_path / "runs" / "fine")
    assert re.fullmatch(r"0\.\d GB for 6 nodes by skippipe plan, [\d.]+ GB are free", lines["memory"][1])
    assert not (tmp_path / "runs").exists()


HUGE = ["model.context=500000", "emulation.enabled=true"]
OFTEN = ["checkpoint_every=1", "iterations=1000000000", "checkpoints_kept=100000000"]
STOPS = {
    "memory": (HUGE, r"memory for 6 nodes: [\d.]+ GB are needed, .* recompute=true"),
    "disk": (OFTEN, r"100000001 checkpoints: [\d.]+ GB are needed, .* fewer checkpoints_kept"),
    "run": (["emulation.enabled=false", "model.d_model=128"], r"pipeline.d_model is 64, .* add model.d_model=64"),
    "text": (["data.source=hub", "data.hub=/nowhere"], r"data.hub /nowhere"),
    "device": (["device=cuda:77"], r"device: 'cuda:77' can't be used here"),
    "address": (["peers.first_port=4000", "peers.advertise=no.such.host.invalid"], r"peers.advertise: 'no.such.host"),
    "ports": (["peers.host=192.0.2.1", "peers.first_port=4000"], r"node 0 can't listen .*Cannot assign .* and 5 more"),
    "secret": (["peers.secret_file=nowhere"], r"peers.secret_file: nowhere can't be read"),
}


@pytest.mark.parametrize("what", STOPS)
def test_what_would_stop_the_run_is_one_line_and_exit_code_2(check: Check, what: str) -> None:
    fields, text = STOPS[what]
    code, lines = check(*fields)
    assert code == 2
    assert lines[what][0] == "STOP"
    assert re.search(text, lines[what][1]), lines[what][1]


def test_memory_is_to_be_saved_by_what_is_not_set_yet(check: Check) -> None:
    text = check(*HUGE, "recompute=true", "precision=bf16")[1]["memory"][1]
    assert "try a smaller model or fewer SAMPLES; skippipe plan" in text


def test_the_text_is_named(check: Check, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("some text\n")
    code, lines = check("data.source=files", f"data.paths=[{tmp_path}/lines.txt]")
    assert (code, lines["text"]) == (0, ("ok", "data.source=files: 1 files"))


def test_a_port_that_somebody_has_is_named(check: Check) -> None:
    port = free_ports(6)
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as other:
            other.bind(("127.0.0.1", port + 2))
            if kind == socket.SOCK_STREAM:
                other.listen()
            code, lines = check(f"peers.first_port={port}")
            assert code == 2
            assert lines["ports"][0] == "STOP"
            assert f"node 2 can't listen on 127.0.0.1:{port + 2} (Address already in use)" in lines["ports"][1]
    code, lines = check(f"peers.first_port={port}")
    assert code == 0
    assert lines["ports"] == ("ok", f"{port} to {port + 5} are free for datagrams and connections")


def test_a_secret_that_others_can_read_and_none_at_all(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("correct horse battery staple")
    secret.chmod(0o644)
    port = free_ports(6)
    part = ["--nodes", "0", "3", f"peers.first_port={port}", f'peers.bootstrap=["127.0.0.1:{port}"]']
    code, lines = check(*part, f"peers.secret_file={secret}")
    assert (code, lines["secret"][0]) == (2, "STOP")
    assert f"chmod 600 {secret}" in lines["secret"][1]
    assert lines["peers"] == ("note", "not looked for: that needs a secret and a port")
    code, lines = check(*part)
    assert (code, lines["secret"][0]) == (2, "STOP")
    assert "give every machine the same peers.secret_file" in lines["secret"][1]
    secret.chmod(0o600)
    code, lines = check(*part, f"peers.secret_file={secret}")
    assert lines["secret"] == ("ok", f"{secret}, mode 600")
    # Nobody else is there yet, which stops nothing.
    assert code == 0
    assert lines["peers"] == ("note", "nobody answers for nodes 3 to 5 in 1 s; start check, or the run, there too")
    assert lines["clock"][1].startswith("not compared")
    assert lines["address"][0] == "note"
    monkeypatch.setenv(SECRET_VARIABLE, "short")
    code, lines = check(*part)
    assert (code, lines["secret"][0]) == (2, "STOP")


def test_a_folder_that_holds_a_run_and_one_that_can_not_be_made(check: Check, tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "node-0.log").touch()
    code, lines = check("name=mine")
    assert (code, lines["folder"][0]) == (2, "STOP")
    assert "holds a run already" in lines["folder"][1]
    (tmp_path / "file").touch()
    for field, what in ((f"runs={tmp_path}/file/runs", "folder"), (f"data.cache={tmp_path}/file/cache", "disk")):
        code, lines = check(field)
        assert (code, lines[what][0]) == (2, "STOP")
        assert f"{tmp_path}/file can't be written" in lines[what][1]
    code, lines = check("data.cache=~nobody-here/cache")
    assert (code, lines["disk"][0]) == (2, "STOP")
    assert "there is no such home" in lines["disk"][1]


def test_what_is_missing_for_several_machines_and_wrong_arguments(
    check: Check, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = check("--nodes", "0", "3")
    assert code == 2
    assert "set peers.first_port, peers.bootstrap" in lines["run"][1]
    for arguments, said in (
        (["--nodes", "0", "21"], "LAST 21, and that at most 20"),
        (["--nodes", "a", "7"], "--nodes must be a whole number"),
        (["--setting", "fastest"], "has no setting 'fastest'"),
        (["peers.hosts=1"], "did you mean peers.host"),
    ):
        capsys.readouterr()
        assert main(["check", *arguments]) == 2
        assert said in capsys.readouterr().err


def test_versions_that_are_missing_stop_and_others_are_noted() -> None:
    found = versions()
    assert look_at_versions(found).verdict is OK
    assert look_at_versions({**found, "torch": found["torch"].partition("+")[0] + "+cu126"}).verdict is OK
    other = look_at_versions({**found, "deccom": "0.9"})
    assert other.verdict is NOTE
    assert "made for deccom 0.1.0" in other.text
    missing = look_at_versions({**found, "torch": "none"})
    assert missing.verdict is STOP
    assert "./setup.sh installs torch" in missing.text


OURS = RunIdentity({"seed": "0", "SETTING": "joint"})
VERSIONS = {"torch": "2.13.0"}
HERE, THERE = ("10.0.0.1", 4000), ("10.0.0.2", 4001)


def made(way: Way | None = None, **said: object) -> Probe:
    """A probe of node 0 that has found node 1 of 2."""
    about = said.pop("about", told(OURS, VERSIONS))
    with contextlib.closing(Listeners.bind("127.0.0.1")) as listeners:
        probe = Probe({0: listeners}, [THERE], None, {}, lambda address: None, 2)
    probe.own = {0: HERE}
    word = Word(
        **{
            "nodes": {1: THERE},
            "about": about,
            "known": (HERE,),
            "reached": (HERE,),
            "is_done": True,
            "time": 0.0,
            **said,
        }
    )  # type: ignore[arg-type]
    probe.words = {min(word.nodes): word}
    probe.ways = {THERE: way or Way(THERE, greets=True, connects=True, word=word, clock=(0.2, 0.1))}
    return probe


def verdicts(probe: Probe) -> dict[str, tuple[Verdict, str]]:
    return {finding.what: (finding.verdict, finding.text) for finding in judge(probe, OURS, VERSIONS, 20.0)}


def test_another_machine_is_judged_by_the_way_there_and_back_and_by_what_it_runs() -> None:
    assert verdicts(made())["nodes 1"] == (OK, "10.0.0.2:4001: reached there and back, same secret, same run")
    other = told(RunIdentity({"seed": "1", "SETTING": "joint"}), VERSIONS)
    for probe, verdict, text in (
        (made(about=other), STOP, r"differs in: seed \(0 here\)$"),
        (made(about={}), STOP, "differs in: SETTING .*, seed"),
        (made(about=told(OURS, {"torch": "2.1"})), NOTE, "same run, but torch 2.1 there"),
        (made(reached=()), STOP, "it does not reach 10.0.0.1:4000 here"),
        (made(Way(THERE, greets=True, trouble="Connection refused")), STOP, "no connections .TCP.: Connection refused"),
        (made(Way(THERE, connects=True)), STOP, "no datagrams .UDP."),
        (made(Way(THERE, trouble="no answer in time")), STOP, "neither .* no answer in time"),
    ):
        found = verdicts(probe)["nodes 1"]
        assert found[0] is verdict
        assert re.search(text, found[1]), found[1]
    twice = verdicts(made(nodes={0: THERE, 1: ("10.0.0.2", 4002)}))["nodes 0 to 1"]
    assert twice[0] is STOP
    assert "nodes 0 are here too" in twice[1]


def test_an_address_without_a_doctor_is_a_run_another_secret_or_nobody() -> None:
    def of(way: Way) -> tuple[Verdict, str]:
        probe = made(way)
        probe.words = {}
        return verdicts(probe)["10.0.0.2:4001"]

    assert of(Way(THERE, greets=True, connects=True, table=OURS.table))[0] is OK
    larger = RunIdentity({**OURS.fields, "the tokens": "1234"})
    assert of(Way(THERE, greets=True, connects=True, table=larger.table))[0] is OK
    verdict, text = of(
        Way(THERE, greets=True, connects=True, table=RunIdentity({"seed": "1", "SETTING": "joint"}).table)
    )
    assert verdict is STOP
    assert text == "a run of something else; it differs in: seed (0 here)"
    assert of(Way(THERE, greets=True, connects=True, table=b"123"))[0] is STOP
    assert of(Way(THERE, greets=True, table=OURS.table))[0] is STOP
    assert of(Way(THERE, hangs_up=True))[0] is STOP
    assert of(Way(THERE, trouble="Connection refused")) == (
        NOTE,
        "no answer in 20 s (Connection refused); start check, or the run, there",
    )


@pytest.mark.parametrize(
    ("ahead", "verdict", "text"),
    [
        (0.5, OK, "agrees with that of nodes 1"),
        (-70.0, NOTE, "is 70 s ahead of that of nodes 1; a run does not mind, logs do"),
        (70.0, NOTE, "is 70 s behind that of nodes 1; a run does not mind, logs do"),
    ],
)
def test_clocks_are_compared_and_stop_nothing(ahead: float, verdict: Verdict, text: str) -> None:
    probe = made()
    (way,) = probe.ways.values()
    way.clock = ahead, 0.1
    assert verdicts(probe)["clock"] == (verdict, text)


def test_strangers_matter_while_somebody_is_missing() -> None:
    probe = made()
    probe.strangers = {"10.0.0.9"}
    assert "strangers" not in verdicts(probe)
    probe.words, probe.ways = {}, dict[Address, Way]()
    found = verdicts(probe)
    assert found["strangers"] == (STOP, "10.0.0.9: called under another secret; copy the same one to every machine")
    assert found["peers"][0] is NOTE
