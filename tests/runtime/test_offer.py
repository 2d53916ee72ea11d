"""What an invitation brings, read by a machine that trusts nothing of it before it has looked."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skippipe.config import RunConfig
from skippipe.data.prepared import TokenFile
from skippipe.errors import UserError
from skippipe.fields import load_config
from skippipe.runtime import offer as offers
from skippipe.runtime.equal import code_digest
from skippipe.runtime.offer import MOST_FILE_BYTES, TOKENS, make_desk, read_document

THERE = "10.0.0.1:4000"


@pytest.fixture
def prepared(tmp_path: Path) -> TokenFile:
    (tmp_path / "own.model").write_bytes(b"a tokenizer")
    (tmp_path / "own.bin").write_bytes(b"tokens")
    (tmp_path / "schedule.json").write_text("{}")
    return TokenFile(tmp_path / "own.model", 300, tmp_path / "own.bin", 2, 1)


def document(tmp_path: Path, prepared: TokenFile, *overrides: str) -> dict[str, Any]:
    """What a machine offers whose configuration has these overrides."""
    config = load_config(RunConfig, None, overrides)
    desk = make_desk(config, "ca-partial", 8, "mine", prepared, tmp_path / "schedule.json", range(3), 6)
    read: dict[str, Any] = json.loads(desk.document)
    return read


def test_what_is_offered_is_read(tmp_path: Path, prepared: TokenFile) -> None:
    own = ("iterations=7", "device=cuda", "runs=/mine", "peers.host=10.0.0.1", "peers.silence_seconds=9")
    written = document(tmp_path, prepared, *own)
    offer, fields = read_document(json.dumps(written).encode(), THERE)
    assert (offer.setting, offer.samples, offer.name) == ("ca-partial", 8, "mine")
    assert list(offer.files) == ["schedule", "tokenizer", "tokens"]
    assert offer.tokenizer.bytes == len(b"a tokenizer")
    config = load_config(RunConfig, None, ["threads=3"], fields)
    assert (config.iterations, config.peers.silence_seconds, config.threads) == (7, 9, 3)
    home = RunConfig()
    assert (config.device, config.runs, config.peers.host) == (home.device, home.runs, home.peers.host)


def test_a_long_token_file_stays_and_no_other_may(
    tmp_path: Path, prepared: TokenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offers, "MOST_FILE_BYTES", len(b"a tokenizer"))
    prepared.tokens.write_bytes(bytes(100))
    offer, _ = read_document(json.dumps(document(tmp_path, prepared)).encode(), THERE)
    assert TOKENS not in offer.files
    prepared.tokenizer.write_bytes(bytes(100))
    with pytest.raises(UserError, match=r"--host: .*own.model has more than 11 bytes, too much for an invitation"):
        document(tmp_path, prepared)


def test_a_configuration_that_is_too_long_is_refused(tmp_path: Path, prepared: TokenFile) -> None:
    paths = [f"/texts/{'x' * 100}/{i}" for i in range(6000)]
    with pytest.raises(UserError, match=r"--host: the configuration has .* bytes, too many for an invitation"):
        document(tmp_path, prepared, "data.source=files", f"data.paths={json.dumps(paths)}")


def test_other_code_is_told_by_its_name_before_anything_else(tmp_path: Path, prepared: TokenFile) -> None:
    written = {"code": "0123456789abcdef", "what later versions": "may say", "config": {"no.such": "field"}}
    with pytest.raises(
        UserError, match=rf"{THERE} runs something else; it differs in: the code \([0-9a-f]{{16}} here\)"
    ):
        read_document(json.dumps(written).encode(), THERE)


NOTE = {"bytes": 5, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokens": {"bytes": MOST_FILE_BYTES + 1, "sha256": "0" * 64}}, "bytes must lie between 0 and"),
        ({"tokens": {"bytes": -1}}, "bytes must lie between 0 and"),
        ({"tokens": {"bytes": 5, "sha256": "../../etc/passwd"}}, "sha256 must have 64 hexadecimal digits"),
        ({"tokens": {"bytes": "5"}}, "bytes must be a whole number"),
        ({"schedule": {"bytes": 0}}, "schedule and tokenizer must come with it"),
        ({"schedule": 5}, "schedule must be a section"),
        ({"name": "../elsewhere"}, "name must be a folder's name"),
        ({"samples": "many"}, "samples must be a whole number"),
        ({"more": 1}, "no field more"),
        ({"config": []}, "no offer with a configuration"),
        ({"config": {"runs": "/elsewhere"}}, "sends runs, which each machine has for itself"),
        ({"config": {"peers": {"secret_file": "/etc/shadow"}}}, "sends peers.secret_file, which each machine has"),
        ({"config": {"data": {"cache": "/etc"}}}, "sends data.cache, which each machine has"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_other_machines_name(
    tmp_path: Path, prepared: TokenFile, changes: dict[str, Any], said: str
) -> None:
    written = {**document(tmp_path, prepared), **changes}
    with pytest.raises(UserError, match=said) as refused:
        read_document(json.dumps(written).encode(), THERE)
    assert str(refused.value).startswith(f"--join: {THERE}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[]", b"[" * 100_000, b"{", b"9" * 5000, b'{"config": {}}'])
def test_what_is_no_document_is_refused(data: bytes) -> None:
    with pytest.raises(UserError, match=f"--join: {THERE}"):
        read_document(data, THERE)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
NAMES = st.sampled_from(["schedule", "tokenizer", "tokens", "name", "samples", "setting", "python", "config"])


@given(st.dictionaries(NAMES | st.text(), VALUES))
def test_any_document_is_an_offer_or_a_users_error(document: dict[str, Any]) -> None:
    with contextlib.suppress(UserError):
        read_document(json.dumps({"config": {}, **document, "code": code_digest()}).encode(), THERE)
