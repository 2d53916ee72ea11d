"""Every end-to-end test runs with emulated times and in real time, or there is a reason why it does not."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

from tests.end_to_end.timing import ALONE, Timing

FOLDER = Path(__file__).resolve().parent


def found_in(path: Path) -> dict[str, bool]:
    """Tests of a module, and whether each says that it runs in real time too: Timing.REAL, or all of Timing."""
    tree = ast.parse(path.read_text())
    tests = [entry for entry in tree.body if isinstance(entry, ast.FunctionDef) and entry.name.startswith("test_")]
    return {test.name: is_real_too(test) for test in tests}


def is_real_too(test: ast.FunctionDef) -> bool:
    """Whether Timing.REAL, or Timing as a list of all, is in a test or its parameters; annotations do not count."""
    annotations = [entry.annotation for entry in ast.walk(test) if isinstance(entry, ast.arg)]
    ignored = {id(part) for annotation in annotations if annotation for part in ast.walk(annotation)}
    ignored |= {
        id(entry.value)
        for entry in ast.walk(test)
        if isinstance(entry, ast.Attribute) and entry.attr != Timing.REAL.name
    }
    return any(
        isinstance(entry, ast.Name) and entry.id == Timing.__name__ and id(entry) not in ignored
        for entry in ast.walk(test)
    )


def test_a_test_that_runs_in_one_timing_alone_has_one_reason_and_no_other_test_has_any() -> None:
    modules = {path.stem: found_in(path) for path in FOLDER.glob("test_*.py") if path != Path(__file__).resolve()}
    alone = {f"{module}.{test}" for module, tests in modules.items() for test, is_both in tests.items() if not is_both}
    listed = [f"{module}.{test}" for those in ALONE.values() for module, tests in those.items() for test in tests]
    assert Counter(listed) == Counter(alone)


def test_both_is_told_from_one_alone() -> None:
    both, one = "Timing.REAL if fault in FAULTS else Timing.EMULATED", "Timing.EMULATED"
    for text, wanted in ((both, True), (one, False), ("list(Timing)", True)):
        (test,) = ast.parse(f"def test_it(timing: Timing) -> None:\n    {text}\n").body
        assert isinstance(test, ast.FunctionDef)
        assert is_real_too(test) == wanted
