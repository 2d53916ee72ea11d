"""Finds schedules: `skippipe.search(config)` searches one, as create_schedule.py does."""

from __future__ import annotations

import sys
from types import ModuleType

from skippipe.schedule import Schedule
from skippipe.search.config import SearchConfig
from skippipe.search.driver import search as search_instance
from skippipe.search.problem import Instance
from skippipe.search.progress import Progress
from skippipe.search.warm_up import warm_up


class CallableRoom(ModuleType):
    """This package as a function too: the room and what is done in it share their name."""

    def __call__(self, config: SearchConfig | None = None, progress: Progress | None = None) -> Schedule:
        """The validated schedule that a configuration, by default SearchConfig's defaults, asks for.

        Compiles the search's loops before its clock runs: half a minute, once after an installation. `progress` shows
        bars and can stop the search, which then returns the best so far. UserError for what can't be searched.
        """
        config = config or SearchConfig()
        instance = Instance.from_config(config)
        warm_up(config)
        return search_instance(instance, config, progress or Progress())


sys.modules[__name__].__class__ = CallableRoom
