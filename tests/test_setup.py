"""setup.sh: which build of torch it asks pip for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
(VERSION,) = re.findall(r"^torch==(\S+)$", (ROOT / "requirements.txt").read_text(), re.M)
BUILDS = {"cpu": f"torch=={VERSION}+cpu\n", "cuda": f"torch==={VERSION}\n"}


def ask(folder: Path, driver: bool, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Call a copy of setup.sh on a machine whose nvidia-smi works, or does not."""
    for name in ("setup.sh", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    # As it ends where the tool is there and the driver is not.
    (tools / "nvidia-smi").write_text(f"#!/bin/sh\nexit {0 if driver else 9}\n")
    (tools / "nvidia-smi").chmod(0o755)
    own = {name: value for name, value in os.environ.items() if name != "SKIPPIPE_TORCH"}
    own |= {"PATH": f"{tools}:{os.environ['PATH']}", **environment}
    return subprocess.run([folder / "setup.sh", *arguments], env=own, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("driver", "build"), [(True, "cuda"), (False, "cpu")])
def test_the_build_is_the_machines(tmp_path: Path, driver: bool, build: str) -> None:
    assert ask(tmp_path, driver, "--torch").stdout == BUILDS[build]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "pyproject.toml",
        "requirements.txt",
        "setup.sh",
        "tools",
    ]


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("driver", [True, False])
def test_the_variable_says_otherwise(tmp_path: Path, driver: bool, build: str) -> None:
    assert ask(tmp_path, driver, "--torch", SKIPPIPE_TORCH=build).stdout == BUILDS[build]


@pytest.mark.parametrize("driver", [True, False])
def test_what_is_installed_stays_whatever_comes_to_the_machine_later(tmp_path: Path, driver: bool) -> None:
    there, other = ("cpu", "cuda") if driver else ("cuda", "cpu")
    (tmp_path / ".venv" / "installed").mkdir(parents=True)
    (tmp_path / ".venv" / "installed" / "torch").write_text(f"{there} {VERSION}\n")
    assert ask(tmp_path, driver, "--torch").stdout == BUILDS[there]
    assert ask(tmp_path, driver, "--torch", SKIPPIPE_TORCH=other).stdout == BUILDS[other]


def test_what_is_neither_is_refused_in_one_line(tmp_path: Path) -> None:
    for arguments in ((), ("--torch",)):
        refused = ask(tmp_path, True, *arguments, SKIPPIPE_TORCH="rocm")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr == "error: SKIPPIPE_TORCH is rocm; give cpu or cuda\n"
    unknown = ask(tmp_path, True, "--gpu")
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("error: unknown argument --gpu; usage: ")


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """What a .venv is asked for that installs nothing: NO_CPU and NO_CUDA are how what they name ends."""
    python, log = tmp_path / ".venv" / "bin" / "python", tmp_path / "asked"
    python.parent.mkdir(parents=True)
    cases = "*+cpu*) exit ${NO_CPU:-0} ;;\n-c*) exit ${NO_CUDA:-0} ;;"
    python.write_text(f'#!/bin/sh\necho "$*" >>{log}\ncase "$*" in\n{cases}\nesac\n')
    python.chmod(0o755)
    return log


def of_pip(log: Path) -> list[str]:
    """What pip was asked to install, in order."""
    return [line.split()[-1] for line in log.read_text().splitlines() if "pip install" in line]


def test_torch_comes_first_and_nothing_is_asked_for_twice(tmp_path: Path, asked: Path) -> None:
    for _ in range(2):
        assert ask(tmp_path, True).returncode == 0
        assert of_pip(asked) == [f"torch==={VERSION}", "requirements.txt", "."]
    assert ask(tmp_path, False, SKIPPIPE_TORCH="cpu").returncode == 0
    assert of_pip(asked)[3:] == [f"torch=={VERSION}+cpu", "."]
    # From now on it is what is there.
    assert ask(tmp_path, True).returncode == 0
    assert len(of_pip(asked)) == 5


def test_where_pip_knows_no_build_without_cuda_the_larger_one_is_taken_and_named(tmp_path: Path, asked: Path) -> None:
    done = ask(tmp_path, False, NO_CPU="1")
    assert done.returncode == 0
    assert of_pip(asked)[:2] == [f"torch=={VERSION}+cpu", f"torch=={VERSION}"]
    assert f"pip finds no build of torch {VERSION} without CUDA" in done.stderr
    assert ask(tmp_path, True, "--torch").stdout == BUILDS["cpu"]


def test_a_build_that_should_have_cuda_and_has_none_ends_in_one_line_and_is_not_remembered(
    tmp_path: Path, asked: Path
) -> None:
    done = ask(tmp_path, True, NO_CUDA="1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: the torch {VERSION} that pip found for this machine has no")
    assert of_pip(asked) == [f"torch==={VERSION}"]
    assert not (tmp_path / ".venv" / "installed").exists()
