"""The house: which room may import which, no circle of imports, and no function that does not fit a screen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "skippipe"
GROUND = {"errors", "fields", "config"}
"""Modules that any room may import, but for transport, which may import errors alone."""
MAY_IMPORT = {
    "schedule": GROUND,
    "data": GROUND,
    "transport": {"errors"},
    "model": GROUND | {"data"},
    "report": GROUND | {"schedule"},
    "search": GROUND | {"schedule"},
    "survival": GROUND | {"schedule"},
    "runtime": GROUND | {"peers", "schedule", "model", "data", "transport", "report", "survival"},
    "reference": GROUND | {"schedule", "model", "data", "transport"},
    "replay": GROUND | {"schedule", "model", "data", "report", "reference"},
    "cli": GROUND
    | {"peers", "schedule", "model", "data", "transport", "report", "search", "survival", "runtime", "replay"},
    "__main__": {"errors"},
    "errors": set(),
    "fields": {"errors"},
    "peers": {"errors", "fields"},
    "config": {"errors", "fields", "peers"},
}
"""Rooms and single modules of the package, and what each of them may import beside itself."""
MOST_LINES, MOST_KERNEL_LINES = 60, 90
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Modules of the package that a file imports, anywhere: inside functions and for type checking too."""
    for entry in ast.walk(tree):
        if isinstance(entry, ast.Import):
            yield from (alias.name for alias in entry.names if alias.name.split(".")[0] == "skippipe")
        elif isinstance(entry, ast.ImportFrom) and str(entry.module).split(".")[0] == "skippipe":
            inner = {f"{entry.module}.{alias.name}" for alias in entry.names}
            yield from inner & MODULES.keys() or {str(entry.module)}


def room(module: str) -> str:
    """The room, or the single module, that a module belongs to."""
    return module.split(".")[1] if "." in module else ""


IMPORTS = {module: set(imports_of(ast.parse(path.read_text()))) - {module} for module, path in MODULES.items()}


@pytest.mark.parametrize("module", [module for module in MODULES if module != "skippipe"])
def test_a_room_imports_only_what_it_may(module: str) -> None:
    foreign = {room(name) for name in IMPORTS[module]} - {room(module)}
    assert foreign <= MAY_IMPORT[room(module)]


def test_there_is_no_circle_of_imports() -> None:
    try:
        tuple(TopologicalSorter(IMPORTS).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_benchmarks_experiments_and_examples_import_the_package_and_never_a_script() -> None:
    trees = {
        path: ast.parse(path.read_text())
        for folder in ("benchmarks", "experiments", "examples")
        for path in sorted((ROOT / folder).glob("*.py"))
    }
    scripts = {path.stem for path, tree in trees.items() if any(isinstance(entry, ast.If) for entry in tree.body)}
    assert len(scripts) > 15
    for path, tree in trees.items():
        for entry in ast.walk(tree):
            if isinstance(entry, ast.ImportFrom):
                assert entry.module not in scripts | {"create_schedule"}, path
            elif isinstance(entry, ast.Import):
                assert not {alias.name for alias in entry.names} & (scripts | {"create_schedule"}), path


def functions(tree: ast.AST) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """Functions of a file, and whether each is compiled."""
    for entry in ast.walk(tree):
        if isinstance(entry, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [decorator.id for decorator in entry.decorator_list if isinstance(decorator, ast.Name)]
            yield entry, "compiled" in names


def test_functions_fit_a_screen() -> None:
    # The simulation's kernels are compiled by the search; their own room knows no compiler.
    kernels = {"first_come_first_served", "follow_order"}
    paths = [*MODULES.values(), ROOT / "create_schedule.py"]
    paths += [path for folder in ("benchmarks", "experiments", "examples") for path in (ROOT / folder).glob("*.py")]
    for path in paths:
        for function, is_compiled in functions(ast.parse(path.read_text())):
            assert function.end_lineno is not None
            lines = function.end_lineno - function.lineno + 1
            most = MOST_KERNEL_LINES if is_compiled or function.name in kernels else MOST_LINES
            assert lines <= most, f"{path.relative_to(ROOT)}: {function.name} has {lines} lines"
