"""What tests on a GPU share. Where torch has none to use they are skipped; none of them was run on one so far."""

from __future__ import annotations

import pytest
import torch

from tests.end_to_end.conftest import start, starter, workplace
from tests.model.conftest import prepared

__all__ = ["prepared", "start", "starter", "workplace"]


@pytest.fixture(scope="session", autouse=True)
def _gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here: torch.cuda.is_available() is False")
