"""Pictures: written, with a row for every node, at any size."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from skippipe.report.plots import draw_gantt, draw_paths, row_places
from skippipe.schedule import Costs, Schedule
from skippipe.schedule.plan import Pipeline, make_plan


def made_schedule(sizes: list[int], path_length: int) -> Schedule:
    """Straight paths over stages of these sizes."""
    bounds = np.cumsum([0, *sizes])
    stages = [list(range(bounds[i], bounds[i + 1])) for i in range(len(sizes))]
    nodes = int(bounds[-1])
    paths = np.array([[stages[k][m % sizes[k]] for k in range(path_length)] for m in range(2 * sizes[0])])
    costs = Costs(np.full(nodes, 1.0), 0.25, 1.5, 0.1, np.where(np.eye(nodes, dtype=bool), 0.0, 0.5))
    plan = make_plan(stages, paths, costs, 3, [2.0] * len(sizes), {})
    pipeline = Pipeline(len(sizes), path_length, 3, 1, 8, 1, 8, 1, 2, 256, 10)
    names = tuple(f"place {node}" for node in range(nodes))
    return Schedule("made", names, np.ones((nodes, nodes)), np.ones((nodes, nodes)), pipeline, costs, {"joint": plan})


def size_of_png(path: Path) -> tuple[int, int]:
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    return int(width), int(height)


@pytest.mark.parametrize(("sizes", "path_length"), [([2, 2], 2), ([7] + [5] * 7, 6)])
def test_pictures_grow_with_the_nodes(sizes, path_length, tmp_path):
    schedule = made_schedule(sizes, path_length)
    draw_gantt(schedule, "joint", tmp_path / "gantt.png", list(schedule.simulate("joint")))
    draw_paths(schedule, "joint", tmp_path / "paths.png")
    assert size_of_png(tmp_path / "gantt.png")[1] > 25 * sum(sizes)
    assert size_of_png(tmp_path / "paths.png")[1] > 100 * max(sizes)


def test_rows_keep_stages_apart():
    plan = made_schedule([3, 2, 2], 3).plan("joint")
    rows = row_places(plan)
    assert len(set(rows.values())) == 7
    assert rows[3] - rows[2] > rows[2] - rows[1]
