"""Checkpoints whose stages lie on several machines: what is told of them, and one machine gathers a whole one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skippipe.__main__ import main
from skippipe.cli.checkpoints import teller_of_trouble
from skippipe.config import DataConfig, ModelConfig, RunConfig
from skippipe.data.batches import prepare
from skippipe.data.prepared import Prepared
from skippipe.errors import UserError
from skippipe.model.checkpoint import checkpoint_folder, find_latest, stage_file
from skippipe.model.checkpoint_meta import Meta
from skippipe.reference import ReferenceTrainer
from skippipe.runtime.gathering import SERVICE, Source, read_offers
from skippipe.schedule import Plan
from skippipe.transport.addresses import shown_address
from skippipe.transport.call import Call, Service, Switchboard, call
from skippipe.transport.guests import LINES_AT_ONCE
from skippipe.transport.identity import SECRET_VARIABLE, cluster_secret

PHRASE = "a secret of all machines"
FILES = [*(f"stage-{stage}.safetensors" for stage in range(3)), "tokenizer.model"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "text.txt").write_text("".join(f"line {i} of {i * i % 97} words\n" for i in range(1000)))
    return prepare(DataConfig(source="files", paths=(str(folder / "text.txt"),), vocabulary=300, cache=str(folder)))


@pytest.fixture
def machine(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """The run's folder on a machine, with these files of the checkpoints of iterations 2 and 4."""
    monkeypatch.setenv(SECRET_VARIABLE, PHRASE)
    whole = tmp_path / "whole"
    config = RunConfig(model=ModelConfig(d_model=16, heads=2, context=16))
    trainer = ReferenceTrainer(config, Plan(((0,), (1,), (2,)), ((0, 1, 2),), {}, (0.0,) * 3, 0.0, 0.0), 2, prepared)
    for iteration in range(4):
        trainer.train_iteration(iteration)
        if iteration % 2:
            trainer.save(whole, Meta(iteration + 1, 3, prepared.vocabulary, "baseline", "0" * 64, "1" * 26, config))

    def make(name: str, second: list[str], fourth: list[str]) -> Path:
        for done, files in ((2, second), (4, fourth)):
            folder = checkpoint_folder(tmp_path / name, done)
            folder.mkdir(parents=True)
            for file in files:
                shutil.copy(checkpoint_folder(whole, done) / file, folder / file)
        return tmp_path / name

    return make


@contextlib.contextmanager
def serving(path: Path, phrase: str = PHRASE) -> Iterator[tuple[str, list[str]]]:
    """A machine that serves what is in its folder: its address, and the files that it has sent."""
    listener, sent = socket.create_server(("127.0.0.1", 0)), list[str]()
    listener.setblocking(False)
    loop = asyncio.new_event_loop()
    source = Source(path, lambda name, size: sent.append(Path(name).name))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SECRET_VARIABLE, phrase)
        service = Service(SERVICE, cluster_secret(None, alone=False))
    board = Switchboard(service, source.take, lambda address, error: sent.append(str(error)))
    task = loop.create_task(board.serve(listener))

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield shown_address(listener.getsockname()), sent
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()
        listener.close()


def same(first: Path, second: Path) -> bool:
    return first.read_bytes() == second.read_bytes()


def test_what_is_here_is_listed(machine: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = machine("one", FILES, FILES[:1])
    assert main(["checkpoints", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [str(checkpoint_folder(run, done)) for done in (4, 2)]
    assert lines[0].endswith("MB  stage 0 of 0 to 2")
    assert lines[1].endswith("MB  complete")
    assert main(["checkpoints", str(run / "nowhere")]) == 2
    assert "nothing is here of any checkpoint" in capsys.readouterr().err


def test_one_machine_gathers_what_lies_on_others(
    machine: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    here, there = machine("here", [], FILES[1:2]), machine("there", FILES, [FILES[0], FILES[3]])
    third, whole = machine("third", FILES, FILES[1:3]), tmp_path / "whole"
    with serving(there) as (first, sent), serving(third) as (second, sent_too):
        # Without the third, the newest that is complete is an older one.
        older = tmp_path / "older"
        assert main(["checkpoints", str(older), "--gather", first]) == 0
        assert find_latest(older).meta.iteration == 2
        assert sorted(sent) == sorted(FILES)
        sent.clear()
        assert main(["checkpoints", str(here), "--gather", first, second]) == 0
    assert (sorted(sent), sent_too) == (sorted([FILES[0], FILES[3]]), [FILES[2]])
    found = find_latest(here)
    assert found.meta.iteration == 4
    assert all(same(found.folder / name, checkpoint_folder(whole, 4) / name) for name in FILES)
    assert f"{found.folder} is complete" in capsys.readouterr().out
    assert main(["export", str(here), "--out", str(tmp_path / "exported")]) == 0
    # Nothing is fetched twice.
    with serving(there) as (first, sent):
        assert main(["checkpoints", str(here), "--gather", first]) == 0
    assert sent == []


def test_what_can_not_be_gathered_is_one_line(
    machine: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refused(*arguments: str) -> str:
        capsys.readouterr()
        assert main(["checkpoints", str(here), *arguments]) == 2
        errors = capsys.readouterr().err
        assert errors.count("\n") == 1
        return errors

    here, there = machine("here", [], FILES[1:2]), machine("there", [], FILES[:1])
    with serving(there) as (address, _):
        assert "of iteration 4 nobody has stage 2" in refused("--gather", address)
    assert f"{address}: Connection refused; does skippipe checkpoints --serve run there" in refused("--gather", address)
    with serving(there, "another secret than ours") as (address, _):
        assert "it holds another secret" in refused("--gather", address)
    assert "name the machines that serve" in refused("--gather")
    assert "addresses are for --gather" in refused("10.0.0.1:4000")
    assert 'HOST:PORT needs an address like "10.0.0.1:4000"' in refused("--gather", "nowhere")
    other = machine("other", [], FILES)
    stage_file(checkpoint_folder(other, 4), 2).write_bytes(b"")
    with serving(other) as (address, trouble):
        assert "closed by the other end" in refused("--gather", address)
    assert "truncated or no safetensors file" in trouble[0]


@pytest.mark.parametrize(
    ("command", "needed"), [("checkpoints", "RUN"), ("run", "FIRST, LAST, SETTING, SAMPLES"), ("evaluate", "RUN")]
)
def test_no_more_is_asked_for_than_is_needed(command: str, needed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([command])
    assert capsys.readouterr().err.endswith(f"error: the following arguments are required: {needed}\n")


def test_strangers_do_not_fill_the_terminal(caplog: pytest.LogCaptureFixture) -> None:
    tell = teller_of_trouble()
    for port in range(1000):
        tell(("127.0.0.1", port), ConnectionError("it hangs up"))
    assert len(caplog.records) == LINES_AT_ONCE
    assert caplog.records[1].getMessage() == "a call from 127.0.0.1:1 ended: it hangs up"


def test_only_what_is_offered_is_sent(machine: Callable[..., Path], tmp_path: Path) -> None:
    there = machine("there", [], FILES)
    (tmp_path / "secret").write_text("secret")
    (checkpoint_folder(there, 4) / ".stage-7.safetensors.tmp").write_text("half")

    async def ask(question: bytes) -> bytes:
        host, _, port = address.partition(":")
        made: Call = await call((host, int(port)), Service(SERVICE, cluster_secret(None, alone=False)))
        try:
            await made.send(question)
            return await made.receive(1 << 20)
        finally:
            made.close()

    with serving(there) as (address, _):
        offers = read_offers(asyncio.run(ask(b"what is there")))
        assert [(offer.iteration, sorted(offer.files)) for offer in offers] == [(4, sorted(FILES))]
        paths = ([4, "../../../secret"], [4, ".stage-7.safetensors.tmp"], [2, FILES[0]])
        for question in (*paths, [4], "x", {"a": 1}, [math.inf, "x"]):
            with pytest.raises(ConnectionError):
                asyncio.run(ask(json.dumps(question).encode()))
        assert (
            asyncio.run(ask(json.dumps([4, FILES[0]]).encode()))
            == stage_file(checkpoint_folder(there, 4), 0).read_bytes()
        )


@pytest.mark.parametrize(
    "entry",
    [
        7,
        {"iteration": 4, "identity": "0", "stages": 3},
        {"iteration": 4, "identity": "0", "stages": 3, "files": {"../../secret": 3}},
        {"iteration": 4, "identity": "0", "stages": 3, "files": {"/etc/passwd": 3}},
        {"iteration": 4, "identity": "0", "stages": 3, "files": {"a/b/c": 3}},
        {"iteration": 4, "identity": "0", "stages": 3, "files": {".bashrc": 3}},
        {"iteration": 4, "identity": "0", "stages": 3, "files": {"a": -3}},
        {"iteration": 4, "identity": "0", "stages": 3, "files": ["a"]},
        {"iteration": math.inf, "identity": "0", "stages": 3, "files": {}},
    ],
)
def test_offers_name_nothing_outside_a_checkpoint(entry: object) -> None:
    with pytest.raises(ValueError, match=r"no list of checkpoints|a file that no checkpoint has"):
        read_offers(json.dumps([entry]).encode())


def test_a_secret_is_needed(machine: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    run = machine("one", [], FILES)
    monkeypatch.delenv(SECRET_VARIABLE)
    assert main(["checkpoints", str(run), "--gather", "127.0.0.1:4000"]) == 2
    with pytest.raises(UserError, match=r"peers\.secret_file"):
        cluster_secret(None, alone=False)
