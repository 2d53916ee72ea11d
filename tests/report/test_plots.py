"""Pictures: written, with a row for every node, at any size."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from skippipe.errors import UserError
from skippipe.report.maps import draw_maps
from skippipe.report.measured import Measured
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
    measured = Measured(schedule.simulate("joint"), "measured (3)", 1)
    draw_gantt(schedule, "joint", tmp_path / "gantt.png", measured)
    draw_paths(schedule, "joint", tmp_path / "paths.png")
    assert size_of_png(tmp_path / "gantt.png")[1] > 25 * sum(sizes)
    assert size_of_png(tmp_path / "paths.png")[1] > 60 * max(sizes)


def test_rows_keep_stages_apart():
    plan = made_schedule([3, 2, 2], 3).plan("joint")
    rows = row_places(plan)
    assert len(set(rows.values())) == 7
    assert rows[3] - rows[2] > rows[2] - rows[1]


@pytest.mark.parametrize("draw", [draw_gantt, draw_paths, draw_maps])
def test_what_is_not_there_is_refused(draw, tmp_path):
    schedule = made_schedule([2, 2], 2)
    with pytest.raises(UserError, match="no setting 'ca-partial', only joint"):
        draw(schedule, "ca-partial", str(tmp_path / "picture.png"))
    with pytest.raises(OSError, match="nowhere"):
        draw(schedule, "joint", str(tmp_path / "nowhere" / "picture.png"))


def test_drawing_leaves_matplotlibs_backend_alone(tmp_path):
    """Pictures need no pyplot, which chooses a backend for the whole process."""
    program = f"""
import sys
from skippipe.report.maps import draw_maps
from skippipe.report.plots import draw_gantt, draw_paths
from skippipe.schedule import Schedule
arguments = Schedule.load("original-20-nodes"), "ca-partial", {str(tmp_path / "picture.png")!r}
for draw in (draw_gantt, draw_paths, draw_maps):
    draw(*arguments)
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
