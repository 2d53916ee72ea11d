"""One run of a soak: that it notices a run that has ended or hangs, kills processes that start, and takes samples."""

from __future__ import annotations

import json
import random
import time

from benchmarks.disturbing import DisturbedRun
from benchmarks.found import Found, Struck
from benchmarks.soaked import STUCK_S, Soaked
from benchmarks.soaking import Fault
from tests.end_to_end.conftest import alive, wait_for


def soaked(run: DisturbedRun, spared: frozenset[int] = frozenset()) -> Soaked:
    """Of a run of two nodes that has just begun."""
    one = Soaked(run, 2, spared, random.Random(0), Found())
    one.moved = time.monotonic()
    return one


def test_a_run_that_has_ended_is_a_failure(run: DisturbedRun) -> None:
    one = soaked(run)
    assert one.tick()
    run.process.kill()
    run.process.wait()
    assert not one.tick()
    (line,) = one.found.failed
    assert line == "run, iteration 0, after 0 faults: the run has ended: at work"


def test_a_run_that_ends_no_iteration_is_a_failure(run: DisturbedRun) -> None:
    one = soaked(run)
    one.moved -= STUCK_S + 1
    with (run.folder / "timeline.jsonl").open("w") as file:
        file.write('{"iteration": 0}\n')
    assert one.tick()
    one.moved -= STUCK_S + 1
    assert not one.tick()
    (line,) = one.found.failed
    assert line.startswith("run, iteration 1, after 0 faults: no iteration has ended for 120 s")


def test_what_launcher_and_spared_nodes_take_is_sampled(run: DisturbedRun) -> None:
    one = soaked(run, frozenset({1}))
    one.tick()
    assert set(one.found.samples) == {"run, launcher", "run, node 1"}
    assert all(memory > 0 and descriptors > 2 for ((memory, descriptors),) in one.found.samples.values())


def test_the_next_process_of_a_node_is_killed_and_not_the_one_before(run: DisturbedRun) -> None:
    pid_file = run.folder / "node-0.pid"
    one = soaked(run)
    one.awaited[0] = int(pid_file.read_text())
    assert one.tick()
    assert one.awaited
    # The other one stands for a process that has been started.
    pid_file.write_text((run.folder / "node-1.pid").read_text())
    wait_for(lambda: one.tick() and not alive(int(pid_file.read_text())))
    assert not one.awaited


def test_what_a_run_has_come_to_is_said_again_and_again(run: DisturbedRun) -> None:
    found = Found(struck=[Struck(Fault.KILLED, (1,), 0.0, gap_s=7.0)], gaps=[5.0], seconds=100.0)
    one = Soaked(run, 2, frozenset(), random.Random(0), found)
    began = time.monotonic() - 10.0
    found.struck.append(Struck(Fault.CUT, (0,), began + 2.5))
    run.ended = {0: began + 2.0}
    one.sum_up(began)
    assert (len(found.gaps), found.struck[-1].gap_s) == (2, 0.0)
    run.ended[1] = began + 5.0
    one.sum_up(began)
    assert [round(gap, 6) for gap in found.gaps] == [5.0, 2.0, 3.0]
    assert [round(each.gap_s, 6) for each in found.struck] == [7.0, 3.0]
    assert 110.0 <= found.seconds < 120.0


def test_a_run_is_calm_once_all_have_been_members_for_some_iterations(run: DisturbedRun) -> None:
    one = soaked(run)
    nodes = {"number": 0, "iteration": 0, "stages": [[0, 1]], "paths": [[0]], "reason": "", "way": "start"}
    views = run.folder / "views.jsonl"
    views.write_text(json.dumps({**nodes, "members": [0, 1], "expected_step_s": 1.0}) + "\n")
    run.ended = {4: 0.0}
    assert not one.is_calm()
    run.ended[7] = 1.0
    assert one.is_calm()
    # One of them has just been killed; the others notice it later.
    one.awaited[1] = 0
    assert not one.is_calm()
    one.awaited.clear()
    assert not one.is_calm()
    run.ended[10] = 2.0
    assert one.is_calm()
