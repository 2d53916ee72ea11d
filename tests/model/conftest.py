"""What tests of stages and their training share: one thread, and a small corpus."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from skippipe.config import DataConfig
from skippipe.data.batches import prepare
from skippipe.data.prepared import Prepared


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "text.txt").write_text("".join(f"line {i} of {i * i % 97} words\n" for i in range(3000)))
    return prepare(DataConfig(source="files", paths=(str(folder / "text.txt"),), vocabulary=300, cache=str(folder)))
