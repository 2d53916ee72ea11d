"""benchmarks/fuzz.py feeds each parser, here for a moment, and stops at whatever is no refusal."""

from __future__ import annotations

import importlib
import random
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def test_every_parser_only_refuses_what_is_mutated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    fuzz = importlib.import_module("fuzz")
    network, documents = fuzz.Network(100), fuzz.Documents(100)
    try:
        parsers = fuzz.parsers_of(network, documents)
        assert len(parsers) == 15
        for parser in parsers.values():
            assert parser(random.Random(7)) > 0
    finally:
        network.close()
        documents.close()


def test_anything_but_a_refusal_ends_the_fuzzing_with_what_did_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    tools = importlib.import_module("fuzz_tools")
    assert tools.expect(ValueError, int, "7")
    assert not tools.expect(ValueError, int, "seven")
    with pytest.raises(AssertionError, match=r"TypeError\(.*from \(\[7\],\)"):
        tools.expect(ValueError, int, [7])
