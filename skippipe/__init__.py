"""SkipPipe, rebuilt: pipeline training whose microbatches may skip and reorder the model's stages.

The names below are loaded when they are first used: `import skippipe` alone takes a few milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skippipe.config import RunConfig as RunConfig
    from skippipe.errors import UserError as UserError
    from skippipe.report.maps import draw_maps as draw_maps
    from skippipe.report.plots import draw_gantt as draw_gantt
    from skippipe.report.plots import draw_paths as draw_paths
    from skippipe.runtime.train import train as train
    from skippipe.schedule import Costs as Costs
    from skippipe.schedule import Network as Network
    from skippipe.schedule import Plan as Plan
    from skippipe.schedule import Schedule as Schedule
    from skippipe.search.config import SearchConfig as SearchConfig

HOMES = {
    "Costs": "schedule",
    "Network": "schedule",
    "Plan": "schedule",
    "RunConfig": "config",
    "Schedule": "schedule",
    "SearchConfig": "search.config",
    "UserError": "errors",
    "draw_gantt": "report.plots",
    "draw_maps": "report.maps",
    "draw_paths": "report.plots",
    "train": "runtime.train",
}
"""Public names and their modules; skippipe.search is a package that can be called."""

__all__ = [*HOMES, "search"]


def __getattr__(name: str) -> Any:
    if name == "search":
        return importlib.import_module("skippipe.search")
    if name not in HOMES:
        raise AttributeError(f"module 'skippipe' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"skippipe.{HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
