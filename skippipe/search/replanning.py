"""`python -m skippipe.search.replanning SECONDS CHAINS PARENT`: a better plan for nodes that go on without others.

It reads a schedule with one setting from its standard input, searches it as `joint` does, and writes a schedule with
the setting `joint`. It ends with its parent, whose process id it is told, and takes only time that nobody else wants.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from skippipe.schedule import Plan, Schedule
from skippipe.search.joint.solver import JointOptions, search_joint
from skippipe.search.problem import Instance

PR_SET_PDEATHSIG = 1
NICE = 19


def replan(schedule: Schedule, seconds: float, chains: int) -> Plan:
    """A plan with the sizes of the stages of the schedule's only setting, whose step is at most as long."""
    ((setting, plan),) = schedule.settings.items()
    return search_joint(Instance.from_schedule(schedule, setting), plan, JointOptions(seconds, chains=chains))


def main(arguments: list[str]) -> None:
    """Search what the parent asks for."""
    seconds, chains, parent = float(arguments[0]), int(arguments[1]), int(arguments[2])
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    os.nice(NICE)
    schedule = Schedule.from_json(sys.stdin.read())
    plan = replan(schedule, seconds, chains)
    ((setting, _),) = schedule.settings.items()
    sys.stdout.write(Instance.from_schedule(schedule, setting).schedule({"joint": plan}).to_json())


if __name__ == "__main__":
    main(sys.argv[1:])
