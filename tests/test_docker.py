"""Dockerfile and compose.yaml, as far as they can be checked without Docker: what they name is there and is taken."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from skippipe.cli import hosting, run
from skippipe.cli.hosting import host_run
from skippipe.cli.invitation import Invitation
from skippipe.cli.invited import check_overrides
from skippipe.schedule import Schedule
from skippipe.transport.identity import SECRET_VARIABLE

ROOT = Path(__file__).resolve().parent.parent
SECRET = "5e" * 32
DOCKERFILE = [line.split(maxsplit=1) for line in (ROOT / "Dockerfile").read_text().splitlines() if line[:1].isupper()]
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]


def filled_in(text: str) -> str:
    """A text with the variable that compose fills in."""
    return re.sub(r"\$\{SKIPPIPE_SECRET(:\?[^}]*)?\}", SECRET, text)


def command(service: str) -> argparse.Namespace:
    """What the image's entry point makes of a service's command; it ends the test if the parser refuses that."""
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    return parser.parse_intermixed_args([filled_in(text) for text in SERVICES[service]["command"]])


def instructions(name: str) -> list[str]:
    """What stands behind an instruction's name, each time."""
    return [rest for keyword, rest in DOCKERFILE if keyword == name]


def test_what_the_image_copies_is_there_before_it_is_needed() -> None:
    first, rest = (text.split() for text in instructions("COPY"))
    for name in first[:-1]:
        assert (ROOT / name).is_file(), name
    # What setup.sh installs from, and what names a package's description.
    needed = set(re.findall(r"[\w-]+\.(?:txt|toml)\b", (ROOT / "setup.sh").read_text())) - {"requirements-dev.txt"}
    readme = re.search(r'^readme = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert readme is not None
    assert {"setup.sh", readme[1], *needed} <= set(first)
    assert rest == [".", "."]
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".venv", ".git", "runs", "secret"} <= set(ignored)
    assert not {Path(name).name for name in first} & set(ignored)


def test_the_image_starts_what_is_there_with_a_python_that_will_do() -> None:
    assert instructions("ENTRYPOINT") == ['["./run.sh"]']
    assert os.access(ROOT / "run.sh", os.X_OK)
    (image,) = instructions("FROM")
    version = re.fullmatch(r"python:3\.(\d+)-slim", image)
    assert version is not None
    assert int(version[1]) >= 11


def test_the_second_machine_follows_the_invitation_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosting, "outward_address", lambda: "172.18.0.2")
    assert filled_in(SERVICES["first"]["environment"][SECRET_VARIABLE]) == SECRET
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    first, second = command("first"), command("second")
    config, shown = host_run(first, int(first.first))
    followed = Invitation.parse(second.join)
    assert followed.secret == shown.secret
    assert followed.address == ("first", shown.address[1])
    check_overrides(second.overrides)
    assert (first.setting, first.samples) == (second.setting, second.samples)
    assert (first.first, first.last, second.last) == ("0", second.first, str(Schedule.load(config.schedule).nodes))
    assert int(first.last) == 10


def test_the_second_machine_comes_when_the_first_one_listens() -> None:
    assert SERVICES["second"]["depends_on"] == {"first": {"condition": "service_healthy"}}
    *call, code = SERVICES["first"]["healthcheck"]["test"]
    assert call == ["CMD", ".venv/bin/python", "-c"]
    assert f"(socket.gethostname(), {hosting.FIRST_PORT})" in code
    compile(code, "healthcheck", "exec")
    assert SERVICES["first"]["image"] == SERVICES["second"]["image"]
    declared = set(yaml.safe_load((ROOT / "compose.yaml").read_text())["volumes"])
    assert {volume.partition(":")[0] for service in SERVICES.values() for volume in service["volumes"]} == declared
