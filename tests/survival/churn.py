"""Nodes that train while some die in every iteration and start again: how many are at work?"""

from __future__ import annotations

from skippipe.survival.agreement import Agreement
from tests.survival.process import Process, ViolationError
from tests.survival.trainer import Content, Trainer
from tests.survival.training import Training

STEP_S = 40.0
RESTART_S = 5.0
"""From a process's end until its node's next process asks to join."""
MOST_STEPS = 20
"""An iteration that takes so many times what it should is stuck."""


class Churn(Training):
    """Training without other faults; one stage, so that the last of its nodes must not die."""

    def __init__(self, seed: int, nodes: int, rate: float, machine: type[Agreement] = Agreement) -> None:
        """In each iteration a node dies with a chance of `rate`."""
        super().__init__(seed, machine)
        self.nodes = self.first = nodes
        self.rate = rate
        self.loss = self.repeated = self.late = self.donors_killed = 0.0
        self.is_storm = self.has_two_stages = False
        self.are_deaths_told = self.are_decisions_told = True
        self.delay_s, self.step_s = 0.1, STEP_S
        self.heal()

    def new_process(self, node: int, birth: int) -> Process:
        trainer = super().new_process(node, birth)
        assert isinstance(trainer, Trainer)
        trainer.pace_s = 0.5
        return trainer

    def kill(self, process: Process) -> None:
        """Its launcher starts another one."""
        if self.processes.get(process.node) is process:
            super().kill(process)
            self.at(RESTART_S, lambda: self.start_again(process.node))

    def come_back(self, process: Process) -> None:
        """Whoever is left out ends, and starts again like one that died."""
        self.counts["left out"] += self.processes.get(process.node) is process
        self.kill(process)

    def kill_node(self, node: int) -> None:
        """A node's process dies if it has one, unless it is the last that holds anything."""
        process = self.processes.get(node)
        holders = [trainer for trainer in self.trainers if trainer.course.has_state and trainer is not process]
        if process is not None and len(holders) > 1:
            self.kill(process)

    def draw_deaths(self) -> None:
        """Of an iteration that begins now."""
        for node in range(self.nodes):
            if self.random.random() < self.rate:
                self.at(STEP_S * self.random.random(), lambda node=node: self.kill_node(node))

    def train(self, iterations: int) -> None:
        """So many iterations; ViolationError if one never ends, or is done twice."""
        self.begin()
        for iteration in range(1, iterations + 1):
            self.draw_deaths()
            began = self.now
            while max(len(trainer.history) for trainer in self.trainers) < iteration:
                if self.now > began + MOST_STEPS * STEP_S:
                    raise ViolationError(f"iteration {iteration} does not end")
                self.step()
            self.work()

    def at_work(self) -> float:
        """The share of all nodes that did an iteration, mean."""
        history = max((trainer.history for trainer in self.trainers), key=len)
        return sum(self.members_in(number) for number in history) / (self.nodes * len(history))

    def members_in(self, number: int) -> int:
        """How many nodes a view has."""
        if number == 0:
            return self.first
        value = self.values[int(self.adopted[number].proposal.value)]
        assert isinstance(value, Content)
        return len(value.members)
