"""The picture of paths: lines keep away from every node but their own two, wherever they are drawn."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from skippipe.report import maps
from skippipe.report.drawing import ARROW_LENGTH, POINTS_PER_INCH, draw_picture, new_figure
from skippipe.report.layout import WIDEST_LINE, Picture, place_paths
from skippipe.schedule import Costs, Plan, Schedule
from skippipe.schedule.plan import Pipeline, make_plan

ORIGINAL = Schedule.load("original-20-nodes")
JOINT = Schedule.load("original-20-nodes-and-joint")


def wandering_schedule(sizes: list[int], path_length: int, seed: int) -> Schedule:
    """Six paths an origin that skip at random, with swaps, over stages of these sizes."""
    generator = np.random.default_rng(seed)
    bounds = np.cumsum([0, *sizes])
    stages = [list(range(bounds[i], bounds[i + 1])) for i in range(len(sizes))]
    paths = []
    for origin in stages[0] * 6:
        visited = sorted(generator.choice(np.arange(1, len(sizes)), path_length - 1, replace=False))
        for place in range(path_length - 2):
            if visited[place + 1] == visited[place] + 1 and generator.random() < 0.3:
                visited[place : place + 2] = [visited[place + 1], visited[place]]
                break
        paths.append([origin, *(int(generator.choice(stages[stage])) for stage in visited)])
    nodes = sum(sizes)
    costs = Costs(np.full(nodes, 1.0), 0.25, 1.5, 0.1, generator.uniform(0.1, 2.0, (nodes, nodes)))
    plan = make_plan(stages, np.array(paths), costs, 6, [2.0] * len(sizes), {})
    pipeline = Pipeline(len(sizes), path_length, 6, 1, 8, 1, 8, 1, 6, 256, 10)
    names = tuple(f"place {node}" for node in range(nodes))
    return Schedule("made", names, np.ones((nodes, nodes)), np.ones((nodes, nodes)), pipeline, costs, {"joint": plan})


CASES: dict[str, tuple[Schedule, str]] = {
    **{setting: (ORIGINAL, setting) for setting in ORIGINAL.settings},
    "joint": (JOINT, "joint"),
    **{f"42 nodes, seed {seed}": (wandering_schedule([7] + [5] * 7, 6, seed), "joint") for seed in range(3)},
    "two stages": (wandering_schedule([3, 2], 2, 0), "joint"),
}


def drawn(schedule: Schedule, plan: Plan) -> tuple[dict[int, np.ndarray], dict[tuple[int, int, int], np.ndarray]]:
    """From the drawing itself: boxes as [left, right, top, bottom], and points of lines with half of their width."""
    picture = place_paths(plan, 1.0)
    axes = draw_picture(new_figure(picture.width, picture.height), schedule, plan, picture, 0.0, 0.0)
    boxes, lines = {}, {}
    for patch in axes.patches:
        kind, *numbers = (patch.get_gid() or "none").split()
        if kind == "node":
            x, y, width, height = patch.get_x(), patch.get_y(), patch.get_width(), patch.get_height()
            boxes[int(numbers[0])] = np.array([x, x + width, y, y + height])
        elif kind == "hop":
            points = np.concatenate([bend(np.linspace(0, 1, 60)) for bend, _ in patch.get_path().iter_bezier()])
            half = np.full((len(points), 1), patch.get_linewidth() / POINTS_PER_INCH / 2)
            origin, sender, receiver = map(int, numbers)
            lines[origin, sender, receiver] = np.hstack([points, half])
    return boxes, lines


def distances(points: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Distance of each point of a line from a box, half of the line's width taken off."""
    x, y, half = points.T
    left, right, top, bottom = box
    across, along = np.maximum(left - x, x - right), np.maximum(top - y, y - bottom)
    return np.hypot(np.maximum(across, 0), np.maximum(along, 0)) - half


@pytest.mark.parametrize("case", CASES)
def test_lines_keep_away_from_nodes_that_they_do_not_visit(case: str) -> None:
    schedule, setting = CASES[case]
    plan = schedule.plan(setting)
    boxes, lines = drawn(schedule, plan)
    assert set(boxes) == set(range(schedule.nodes))
    assert set(lines) == {(path[0], a, b) for path in plan.paths for a, b in pairwise(path)}
    for (_, sender, receiver), points in lines.items():
        for node, box in boxes.items():
            if node not in (sender, receiver):
                assert distances(points, box).min() > 0.05, (sender, receiver, node)
        assert distances(points[:1], boxes[sender])[0] < 1e-9
        assert distances(points[-1:], boxes[receiver])[0] < ARROW_LENGTH + WIDEST_LINE
        inside = [((distances(points, boxes[node]) + points[:, 2]) < -1e-9).any() for node in (sender, receiver)]
        assert not any(inside)


@pytest.mark.parametrize("case", CASES)
def test_boxes_of_nodes_and_lanes_of_lines_stand_apart(case: str) -> None:
    schedule, setting = CASES[case]
    picture = place_paths(schedule.plan(setting), 1.0)
    for taken in taken_in_columns(picture):
        for (_, bottom), (top, _) in pairwise(sorted(taken)):
            assert top - bottom > 0.05


def taken_in_columns(picture: Picture) -> list[list[tuple[float, float]]]:
    """Top and bottom of every box and lane, column by column."""
    columns: list[list[tuple[float, float]]] = [[] for _ in picture.columns]
    for (x, y), height in picture.boxes.values():
        columns[picture.columns.index(x)].append((y - height / 2, y + height / 2))
    for route in picture.routes:
        for (left, y), (right, level) in zip(route.corners[1:-1:2], route.corners[2:-1:2], strict=True):
            assert level == y
            column = int(np.argmin(np.abs(np.array(picture.columns) - (left + right) / 2)))
            columns[column].append((y - route.width / 2, y + route.width / 2))
    return columns


def test_a_line_is_as_wide_as_microbatches_share_it() -> None:
    plan = JOINT.plan("joint")
    routes = place_paths(plan, 1.0).routes
    shares = [sum(route.microbatches for route in routes if route.hop.origin == origin) for origin in plan.stages[0]]
    assert shares == [(plan.path_length - 1) * plan.sends[origin] for origin in plan.stages[0]]
    assert len({round(route.width / route.microbatches, 9) for route in routes}) == 1


def test_boxes_on_the_map_do_not_overlap(tmp_path: Path) -> None:
    box = np.array([1.0, 0.36])
    for schedule in (ORIGINAL, wandering_schedule([7] + [5] * 7, 6, 0)):
        between = np.abs(np.subtract.outer(*[maps.places_on_map(schedule, box)] * 2).diagonal(axis1=1, axis2=3))
        apart = (between >= box).any(axis=2) | np.eye(schedule.nodes, dtype=bool)
        assert apart.all()


def test_maps_are_drawn_at_any_size(tmp_path: Path) -> None:
    for schedule in (CASES["two stages"][0], wandering_schedule([10] * 7, 4, 0)):
        maps.draw_maps(schedule, "joint", str(tmp_path / "map.png"))
        assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"
