"""views.jsonl: a line a view, whoever writes it first."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

from skippipe.report.views import VIEWS, append_views


def test_launchers_that_share_a_folder_leave_each_view_once(tmp_path: Path) -> None:
    views = [{"number": number, "members": [0, 1], "reason": "lost: 2"} for number in range(200)]

    def launcher() -> None:
        # The last ones again and again, as those write them who speak for a machine.
        for place in range(len(views)):
            append_views(tmp_path, views[max(0, place - 3) : place + 1])

    launchers = [multiprocessing.get_context("fork").Process(target=launcher) for _ in range(2)]
    for process in launchers:
        process.start()
    for process in launchers:
        process.join()
        assert process.exitcode == 0
    assert [json.loads(line) for line in (tmp_path / VIEWS).read_text().splitlines()] == views
