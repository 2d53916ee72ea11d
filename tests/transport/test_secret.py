"""The cluster's secret: from where it is taken, who may read it, and what is compared without telling it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from skippipe.errors import UserError
from skippipe.transport.identity import SECRET_VARIABLE, cluster_secret, keyed
from skippipe.transport.run_identity import RunIdentity


def secret_file(folder: Path, mode: int, text: str = "correct horse battery staple") -> str:
    path = folder / "secret"
    path.write_text(text + "\n")
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(UserError, match=r"peers.secret_file: others can read or write .* chmod 600"):
        cluster_secret(secret_file(tmp_path, mode), alone=False)


def test_file_and_variable_give_the_same_key_which_is_not_the_passphrase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = cluster_secret(secret_file(tmp_path, 0o600), alone=False)
    monkeypatch.setenv(SECRET_VARIABLE, "correct horse battery staple")
    assert cluster_secret(None, alone=False) == key
    assert len(key) == 32
    assert b"horse" not in key


def test_a_guess_at_a_passphrase_costs_what_is_told(tmp_path: Path) -> None:
    told = (Path(__file__).resolve().parents[2] / "docs/machines.md").read_text()
    assert "Keys are made from it with scrypt, so a passphrase costs a tenth\nof a second and 32 MB a guess" in told
    # Scrypt takes 128 n r bytes (RFC 7914).
    cost = {"n": (32 << 20) // (128 * 8), "r": 8, "p": 1, "maxmem": 1 << 27}
    key = hashlib.scrypt(b"correct horse battery staple", salt=b"skippipe cluster", dklen=32, **cost)
    assert cluster_secret(secret_file(tmp_path, 0o600), alone=False) == key


def test_a_variable_need_not_be_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, os.fsdecode(b"\xff\xfe, sixteen bytes and more"))
    assert len(cluster_secret(None, alone=False)) == 32


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("~nobody-by-this-name/x", "'~nobody-by-this-name/x' is no path (Could not determine home directory.)"),
        ("a\0b", "is no path (embedded null byte)"),
        ("\ud800", "is no path ("),
        ("/nowhere", "/nowhere can't be read (No such file or directory)"),
    ],
)
def test_what_is_no_file_to_read_is_named_in_one_line(name: str, line: str) -> None:
    with pytest.raises(UserError) as raised:
        cluster_secret(name, alone=True)
    assert str(raised.value).startswith("peers.secret_file: ")
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)


def test_short_secrets_and_none_at_all_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)
    with pytest.raises(UserError, match="at least 16 bytes, not 5"):
        cluster_secret(secret_file(tmp_path, 0o600, "short"), alone=False)
    with pytest.raises(UserError, match=r"give every machine the same peers.secret_file"):
        cluster_secret(None, alone=False)
    assert cluster_secret(None, alone=True) != cluster_secret(None, alone=True)


def test_a_tag_tells_apart_what_is_cut_otherwise() -> None:
    assert keyed(b"k", b"purpose", b"ab", b"c") != keyed(b"k", b"purpose", b"a", b"bc")
    assert keyed(b"k", b"purpose", b"abc") != keyed(b"k", b"other", b"abc")


def test_fields_are_compared_by_name_and_only_our_own_value_is_shown() -> None:
    ours = RunIdentity({"seed": "0", "SETTING": "joint", "only.here": "1"}, b"1" * 16)
    theirs = RunIdentity({"seed": "5", "SETTING": "joint", "only.there": "2"}, b"1" * 16)
    assert ours.differences(ours.table, b"1" * 16) == []
    assert ours.differences(ours.table, b"2" * 16) == ["run id"]
    assert ours.differences(theirs.table, b"1" * 16) == [
        "only.here (1 here)",
        "seed (0 here)",
        "fields that are not known here",
    ]
    with pytest.raises(ValueError, match="a table of 3 bytes"):
        ours.differences(b"123", b"1" * 16)
