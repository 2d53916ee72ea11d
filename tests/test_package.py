"""The package as others use it: its names, what loading it costs, what it needs, and the wheel."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import skippipe

ROOT = Path(__file__).resolve().parent.parent
OTHER_NAMES = {"yaml": "pyyaml"}
NEEDED_BY_OTHERS = {"requests"}
"""What a dependency imports without naming it."""


def run_python(code: str, cwd: Path, python: str = sys.executable) -> str:
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_public_name_is_there() -> None:
    for name in skippipe.__all__:
        assert callable(getattr(skippipe, name)), name
    assert set(skippipe.__all__) <= set(dir(skippipe))
    with pytest.raises(AttributeError, match="no attribute 'schedules'"):
        skippipe.schedules  # noqa: B018


def test_importing_takes_milliseconds_and_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import json, sys, time\nbegan = time.process_time()\nimport skippipe\n"
        "print(json.dumps([time.process_time() - began, sorted(sys.modules)]))"
    )
    seconds, modules = json.loads(run_python(code, tmp_path))
    assert seconds < 0.05
    assert not {"torch", "numba", "numpy", "matplotlib", "yaml"} & set(modules)
    both = "import sys, skippipe\nskippipe.Schedule, skippipe.draw_gantt\nprint({'torch', 'numba'} & set(sys.modules))"
    assert run_python(both, tmp_path).strip() == "set()"


def test_a_search_from_python() -> None:
    config = skippipe.SearchConfig(
        nodes=9,
        stages=4,
        stage_sizes=(3, 2, 2, 2),
        path_length=3,
        settings=("baseline", "ca-partial"),
        trials=20,
        population=8,
        constraint_sets=4,
        pipeline_steps=100,
        path_steps=100,
        time_budget_s=None,
    )
    schedule = skippipe.search(config)
    assert list(schedule.settings) == ["baseline", "ca-partial"]
    assert schedule.simulate("ca-partial").iteration_s == pytest.approx(
        schedule.plan("ca-partial").expected_iteration_s
    )
    assert skippipe.Schedule.from_json(schedule.to_json()).to_json() == schedule.to_json()


def imported(folder: Path) -> set[str]:
    """Top-level names that Python files below a folder import."""
    names = set()
    for path in folder.rglob("*.py"):
        for entry in ast.walk(ast.parse(path.read_text())):
            if isinstance(entry, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in entry.names}
            elif isinstance(entry, ast.ImportFrom) and not entry.level:
                names.add(str(entry.module).partition(".")[0])
    return names


def test_requirements_name_what_is_imported_and_nothing_else() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    required = {re.split(r"[=<>~\[ ]", line)[0] for line in lines if line and not line.startswith("#")}
    others = imported(ROOT / "skippipe") - set(sys.stdlib_module_names) - {"skippipe"}
    assert required - NEEDED_BY_OTHERS == {OTHER_NAMES.get(name, name) for name in others}


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with our wheel in it; its dependencies are those of the tests' environment."""
    folder = tmp_path_factory.mktemp("wheel")
    # A copy: building leaves build/ and egg-info behind.
    sources = folder / "sources"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).exists() and not name.startswith(("experiments/results", "docs/")):
            target = sources / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_symlink():
                target.symlink_to(os.readlink(ROOT / name))
            else:
                target.write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "wheel", *offline, "--wheel-dir", str(folder), str(sources)], check=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "fresh", with_pip=False)
    python = folder / "fresh" / "bin" / "python"
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)], check=True)
    site = run_python("import sysconfig; print(sysconfig.get_path('purelib'))", folder, str(python)).strip()
    # A line that is a path is only appended to sys.path: the editable installation there is not followed.
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_the_wheel_searches_and_loads_what_it_ships_from_any_folder(installed: Path, tmp_path: Path) -> None:
    where = run_python("import skippipe; print(skippipe.__file__)", tmp_path, str(installed)).strip()
    assert where.startswith(str(installed.parent.parent))
    command = [
        str(installed.parent / "skippipe"),
        "search",
        "--quiet",
        "--settings",
        "baseline,ca-partial",
        "--trials",
        "2",
        "--population",
        "4",
        "--constraint-sets",
        "4",
        "--pipeline-steps",
        "10",
        "--path-steps",
        "10",
        "--time-budget-s",
        "null",
    ]
    # Compiling the kernels once more takes longer than so short a search in plain Python.
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert list(skippipe.Schedule.load(tmp_path / "schedule.json").settings) == ["baseline", "ca-partial"]
    code = "import skippipe; print(len(skippipe.Schedule.load('original-20-nodes').settings))"
    assert run_python(code, tmp_path, str(installed)).strip() == "4"


def test_the_wheel_trains_with_the_shipped_configuration_from_any_folder(installed: Path, tmp_path: Path) -> None:
    command = [
        str(installed.parent / "skippipe"),
        "run",
        "0",
        "20",
        "ca-partial",
        "8",
        "iterations=1",
        "name=shipped",
        "emulation.time_scale=0.01",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "runs" / "shipped" / "summary.json").read_text())["nodes"] == 20
