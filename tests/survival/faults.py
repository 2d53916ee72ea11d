"""A world with faults at random moments, and what must hold during and after them."""

from __future__ import annotations

from skippipe.survival.agreement import Agreement
from skippipe.survival.messages import Accept, Message
from tests.survival.process import Process, ViolationError
from tests.survival.simulation import World

FAULTS_S = 25.0
"""How long there are faults."""
CALM_S = 400.0
"""All must be well again within this time after the last fault."""
EXCUSED_S = 40.0
"""As long we look at those that need not get well."""
MOST_SENT = 20
"""Messages that a node may send in a second of the calm, on average."""


class Torture(World):
    """One seed's."""

    def __init__(self, seed: int, machine: type[Agreement] = Agreement) -> None:
        super().__init__(seed, 0, 0, machine)
        choice = self.random.choice
        self.is_storm = self.random.random() < 0.6
        """Few nodes, and messages, deaths and suspicions that overtake each other all the time."""
        self.nodes = choice([3, 4, 5] if self.is_storm else [2, 3, 3, 4, 4, 5, 5, 6, 7])
        self.heal()
        self.first = choice([self.nodes, self.nodes, self.random.randrange(2, self.nodes + 1)])
        self.are_deaths_told = self.random.random() < 0.85
        self.are_decisions_told = self.random.random() < 0.6
        self.loss = choice([0, 0, 0.1] if self.is_storm else [0, 0.05, 0.2, 0.4])
        self.repeated, self.left_out, self.joining_again = 0.1, 0.05, 0.5
        self.delay_s = choice([0.01, 0.1, 0.5])
        self.late = 0.4 if self.is_storm else choice([0, 0.02, 0.2])
        self.pause_s = 0.3 if self.is_storm else choice([0.5, 1.5, 4.0])
        """Between two faults, on average."""
        self.weights = STORM if self.is_storm else ORDINARY

    def send(self, sender: int, receiver: int, message: Message) -> None:
        super().send(sender, receiver, message)
        if self.is_storm and isinstance(message, Accept) and self.processes and self.random.random() < 0.15:
            self.usurp(self.random.choice(list(self.processes.values())))

    def some(self) -> Process | None:
        """A process; more often than not one that proposes."""
        proposers = [process for process in self.processes.values() if process.machine.ballot is not None]
        if proposers and self.random.random() < 0.5:
            return self.random.choice(proposers)
        return self.random.choice(list(self.processes.values())) if self.processes else None

    def fault(self) -> None:
        """One of the faults, of a process."""
        process = self.some()
        if process is not None:
            (fault,) = self.random.choices(list(self.weights), list(self.weights.values()))
            self.counts[fault.__name__] += 1
            fault(self, process)

    def kill_somehow(self, process: Process) -> None:
        """Between two events, or in the middle of one."""
        process.dies = self.random.choice(["", "", "after some of its messages", "before it tells"])
        if not process.dies:
            self.kill(process)

    def kill_all_others(self, process: Process) -> None:
        """While it is stopped; some are back before the last is dead."""
        self.stop(process)
        for other in self.processes.values():
            if other is not process:
                at = self.random.uniform(1, 15)
                self.at(at, lambda other=other: self.kill(other))
                self.at(at + 5 * self.random.random(), lambda node=other.node: self.start_again(node))

    def stop(self, process: Process) -> None:
        """As SIGSTOP does, for a while."""
        process.is_stopped = True
        self.check_links()
        self.at(self.random.uniform(0.5, 20), lambda: self.go_on(process))

    def part(self, process: Process) -> None:
        """Cut the network in two for a while."""
        self.sides = {node: self.random.randrange(2) for node in range(self.nodes)}
        self.check_links()
        self.at(self.random.uniform(1, 10), self.heal)

    def suspect_somebody(self, process: Process) -> None:
        """Wrongly, for a while."""
        peer = (process.node + self.random.randrange(1, self.nodes)) % self.nodes
        self.event(process, lambda now: process.machine.suspect(peer, now))
        self.at(self.random.uniform(0.5, 8), lambda: self.check_link(process.node, peer, process))

    def usurp(self, process: Process) -> None:
        """A process suspects all that could be the proposer instead."""
        for peer in range(process.node):
            self.event(process, lambda now, peer=peer: process.machine.suspect(peer, now))
            self.at(self.random.uniform(0.5, 20), lambda peer=peer: self.check_link(process.node, peer, process))

    def want_change(self, process: Process) -> None:
        """The application wants another view."""
        self.event(process, process.machine.want_change)

    def start_somebody(self, process: Process) -> None:
        """A dead node starts again."""
        gone = [node for node in range(self.nodes) if node not in self.processes]
        if gone:
            self.start_again(self.random.choice(gone))

    def heal(self) -> None:
        self.sides = dict.fromkeys(range(self.nodes), 0)
        self.check_links()

    def go_on(self, process: Process) -> None:
        """What came while it was stopped comes now."""
        process.is_stopped = False
        waiting, process.waiting = process.waiting, []
        for action in waiting:
            self.event(process, action)
        self.check_links()

    def work(self) -> None:
        """Somebody commits an iteration."""
        for process in self.processes.values():
            if not process.is_frozen and not process.is_stopped and self.random.random() < 0.5:
                process.committed += 1

    def is_well(self) -> bool:
        """Whether all living nodes are in one view, and nobody else is."""
        living = {process.node: process.birth for process in self.processes.values()}
        machines = [process.machine for process in self.processes.values()]
        return all(machine.births == living and not machine.wanted for machine in machines) and (
            len({machine.number for machine in machines}) == 1
        )

    def must_end_well(self) -> bool:
        """Whether the newest view has living members that can know of it, and they can be a quorum."""
        newest = max(self.adopted, default=0)
        members = dict(self.adopted[newest].proposal.members) if newest else dict.fromkeys(range(self.first), 0)
        living = [process for process in self.processes.values() if members.get(process.node) == process.birth]
        is_known = any(process.view == newest for process in living)
        if self.are_deaths_told:
            return is_known or (bool(living) and self.are_decisions_told)
        return is_known and 2 * len(living) > len(members)

    def run(self) -> None:
        """Faults, then calm; ViolationError if something is wrong."""
        self.begin()
        for node in range(self.first, self.nodes):
            self.at(self.random.uniform(0, FAULTS_S), lambda node=node: self.start_again(node))
        while self.now < FAULTS_S:
            until = min(self.now + self.random.expovariate(1 / self.pause_s), FAULTS_S)
            while self.events and self.events[0][0] < until:
                self.step()
            self.now = until
            self.work()
            self.fault()
        self.calm()
        sent = self.counts["sent"]
        while self.events and self.now < FAULTS_S + CALM_S and not self.is_well():
            for _ in range(min(10, len(self.events))):
                self.step()
            if self.now > FAULTS_S + EXCUSED_S and not self.must_end_well():
                break
        if self.counts["sent"] - sent > MOST_SENT * self.nodes * (self.now - FAULTS_S + 10):
            raise ViolationError("a storm of messages")
        if self.must_end_well():
            self.counts["had to end well"] += 1
            if not self.is_well():
                raise ViolationError("not all living nodes are in one view")

    def calm(self) -> None:
        """No more faults."""
        self.loss = self.repeated = self.late = self.left_out = 0
        self.is_storm = False
        for process in list(self.processes.values()):
            process.dies = ""
            self.go_on(process)
        self.heal()


def breaks(world: Torture) -> bool:
    """Whether anything is found."""
    try:
        world.run()
    except ViolationError:
        return True
    return False


ORDINARY = {
    Torture.kill_somehow: 15,
    Torture.kill_all_others: 4,
    Torture.stop: 15,
    Torture.part: 8,
    Torture.suspect_somebody: 15,
    Torture.usurp: 10,
    Torture.want_change: 10,
    Torture.start_somebody: 25,
}
STORM = {
    Torture.kill_somehow: 4,
    Torture.kill_all_others: 2,
    Torture.stop: 4,
    Torture.part: 2,
    Torture.suspect_somebody: 5,
    Torture.usurp: 50,
    Torture.want_change: 14,
    Torture.start_somebody: 20,
}
"""How often each fault comes."""
