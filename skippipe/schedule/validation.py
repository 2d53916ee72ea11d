"""What makes a schedule runnable: the constraints on paths, complete orders, bounded memory, no cycle of waiting."""

from __future__ import annotations

import numpy as np

from skippipe.errors import UserError
from skippipe.schedule.arrays import Floats
from skippipe.schedule.content import Content
from skippipe.schedule.plan import Kind, Plan, Task, timed

MOST_STAGES_PAST_FRONTIER = 4
MOST_STAGES_BEHIND_FRONTIER = 1
MOST_SWAPS = 2
"""Limits of CC2 and CC3 (paper, constraints); the frontier is the furthest stage that a path has visited so far."""
GRID_COLUMNS = 6
"""Tasks shown on either side of a stuck node's place in the dry run's grid."""
GRID_ROWS = 12


def validate(schedule: Content) -> None:
    """Raise UserError naming setting, node and task if a plan breaks a rule (paper, constraints CC1-CC3, TC1)."""
    for setting, plan in schedule.settings.items():
        where = f"setting {setting}"
        check_stages(plan, where, schedule.nodes, schedule.pipeline.stages)
        check_paths(plan, where, schedule.pipeline.path_length)
        check_even_visits(plan, where)
        check_orders(plan, where, schedule.nodes)
        check_memory(plan, where, schedule.pipeline.memory)
        starts = plan.starts(schedule.costs)
        check_progress(plan, where, starts)
        check_expected(plan, where, schedule, starts)


def check_stages(plan: Plan, where: str, nodes: int, stages: int) -> None:
    """Every node in exactly one stage, no stage empty."""
    if len(plan.stages) != stages:
        raise UserError(f"{where}: stages lists {len(plan.stages)} stages, pipeline.stages says {stages}")
    for stage, members in enumerate(plan.stages):
        if not members:
            raise UserError(f"{where}: stage {stage} has no node")
    homes = check_homes(plan, where, nodes)
    for node in range(nodes):
        if node not in homes:
            raise UserError(f"{where}: node {node} is in no stage; add it to one")


def check_homes(plan: Plan, where: str, nodes: int) -> dict[int, int]:
    """The stage of each node that has one; none has two."""
    homes: dict[int, int] = {}
    for stage, members in enumerate(plan.stages):
        for node in members:
            if not 0 <= node < nodes:
                raise UserError(f"{where}: stage {stage} names node {node}; nodes go from 0 to {nodes - 1}")
            if node in homes:
                raise UserError(f"{where}: node {node} is in stages {homes[node]} and {stage}; remove it from one")
            homes[node] = stage
    return homes


def check_paths(plan: Plan, where: str, path_length: int, most_past: int = MOST_STAGES_PAST_FRONTIER) -> None:
    """CC1 (stage 0 first, once), CC2 (limited reordering) and the bound on skipping of CC3, for every path."""
    if not plan.paths:
        raise UserError(f"{where}: microbatches is empty")
    stage_of = plan.stage_of()
    for microbatch, path in enumerate(plan.paths):
        place = f"{where}: microbatch {microbatch}"
        if len(path) not in (path_length, len(plan.stages)) or len(path) != plan.path_length:
            wanted = f"path_length {path_length}, or {len(plan.stages)} for full paths, the same for every microbatch"
            raise UserError(f"{place}: path visits {len(path)} nodes, expected {wanted}")
        for node in path:
            if node not in stage_of:
                raise UserError(f"{place}: path visits node {node}, which is in no stage")
        if problem := path_problem([stage_of[node] for node in path], most_past):
            raise UserError(f"{place}: path {list(path)} {problem}")


def path_problem(stages: list[int], most_past: int = MOST_STAGES_PAST_FRONTIER) -> str | None:
    """What breaks CC1, CC2 or the skip bound of CC3 in a list of visited stages; None if nothing does."""
    if stages[0] != 0:
        return "must start at a stage-0 node (CC1)"
    if len(set(stages)) != len(stages):
        twice = next(stage for stage in stages if stages.count(stage) > 1)
        return f"visits stage {twice} twice (CC2)"
    frontier, swaps = 0, 0
    for stage in stages[1:]:
        if stage > frontier + most_past:
            return f"jumps from frontier {frontier} to stage {stage}, more than {most_past} (CC3)"
        if stage < frontier:
            swaps += 1
            if stage < frontier - MOST_STAGES_BEHIND_FRONTIER:
                return f"visits stage {stage} more than {MOST_STAGES_BEHIND_FRONTIER} behind frontier {frontier} (CC2)"
        frontier = max(frontier, stage)
    if swaps > MOST_SWAPS:
        return f"has {swaps} swaps, at most {MOST_SWAPS} are allowed (CC2)"
    return None


def check_even_visits(plan: Plan, where: str) -> None:
    """CC3: every stage but 0 equally often; one visit of tolerance if the numbers don't divide."""
    others = plan.stage_visits()[1:]
    if others and max(others) - min(others) > (1 if sum(others) % len(others) else 0):
        raise UserError(f"{where}: stages 1 to {len(others)} are visited {others} times, unevenly (CC3)")


def tasks_of_nodes(plan: Plan, nodes: int) -> list[set[Task]]:
    """Every task that the paths ask of each node."""
    wanted: list[set[Task]] = [set() for _ in range(nodes)]
    for microbatch, path in enumerate(plan.paths):
        wanted[path[0]].add(Task(Kind.LOSS, microbatch))
        for node in path:
            wanted[node] |= {Task(Kind.FORWARD, microbatch), Task(Kind.BACKWARD, microbatch)}
    return wanted


def check_orders(plan: Plan, where: str, nodes: int) -> None:
    """Each node's order holds exactly the tasks that the paths ask of it."""
    for node in plan.order:
        if not 0 <= node < nodes:
            raise UserError(f"{where}: order names node {node}; nodes go from 0 to {nodes - 1}")
    for node, wanted in enumerate(tasks_of_nodes(plan, nodes)):
        place = f"{where}: order of node {node}"
        seen: set[Task] = set()
        for task in plan.order.get(node, ()):
            if task in seen:
                raise UserError(f"{place} repeats task {task}")
            if task not in wanted:
                raise UserError(f"{place} has task {task}, which no path asks of this node")
            seen.add(task)
        if missing := wanted - seen:
            first = min(missing, key=lambda task: (task.microbatch, task.kind.value))
            raise UserError(
                f"{place} misses task {first}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            )


def check_memory(plan: Plan, where: str, memory: int) -> None:
    """TC1: no node ever holds more than `memory` microbatches; follows from its order alone, whatever the timing."""
    for node, tasks in plan.order.items():
        held = 0
        for task in tasks:
            held += {Kind.FORWARD: 1, Kind.LOSS: 0, Kind.BACKWARD: -1}[task.kind]
            if held > memory:
                raise UserError(
                    f"{where}: node {node} holds {held} microbatches at task {task}, memory is {memory} (TC1)"
                )


def check_progress(plan: Plan, where: str, starts: Floats) -> None:
    """The dry run reaches every task; otherwise nodes wait for each other, shown as a grid."""
    if not np.isnan(starts).any():
        return
    stuck: list[tuple[int, int]] = []
    for node, tasks in sorted(plan.order.items()):
        for place, task in enumerate(tasks):
            if np.isnan(starts[task.microbatch, plan.step_of(task, node)]):
                stuck.append((node, place))
                break
    node, place = stuck[0]
    raise UserError(
        f"{where}: node {node} waits for ever at task {plan.order[node][place]} (cycle of waiting)\n"
        + progress_grid(plan, stuck)
    )


def progress_grid(plan: Plan, stuck: list[tuple[int, int]]) -> str:
    """The orders of the stuck nodes, one row each, with the task that each of them waits at in brackets."""
    rows = []
    for node, place in stuck[:GRID_ROWS]:
        first = max(0, place - GRID_COLUMNS)
        shown = plan.order[node][first : place + GRID_COLUMNS]
        cells = [f"[{task}]" if first + i == place else f" {task} " for i, task in enumerate(shown)]
        rows.append(f"  node {node:4d}: {'.. ' if first else ''}{''.join(f'{cell:>6}' for cell in cells)}")
    if len(stuck) > GRID_ROWS:
        rows.append(f"  and {len(stuck) - GRID_ROWS} more nodes")
    return "\n".join(rows)


def check_expected(plan: Plan, where: str, schedule: Content, starts: Floats) -> None:
    """The expected times in the file are those of the simulation."""
    simulated = timed(plan, schedule.costs, starts)
    for name in ("expected_iteration_s", "expected_step_s"):
        stated, computed = getattr(plan, name), getattr(simulated, name)
        if abs(stated - computed) > 1e-6 * computed:
            raise UserError(
                f"{where}: {name} says {stated:g}, but its order takes {computed:g};"
                " write the file with create_schedule.py after a change"
            )
