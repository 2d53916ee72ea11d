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
