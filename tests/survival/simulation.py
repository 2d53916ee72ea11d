"""Simulated nodes that agree on views, with faults at random moments, and what must hold whatever comes."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from skippipe.survival.agreement import Agreement, Outgoing
from skippipe.survival.messages import Death, Decided

PATIENCE_S = 15.0
FAULTS_S = 25.0
"""How long there are faults."""
CALM_S = 400.0
"""After the last fault, all must be well again within this time."""


class ViolationError(AssertionError):
    """What must never happen has happened."""


class EndedError(Exception):
    """The process is killed in the middle of an event."""


@dataclass
class Value:
    """What the application agrees on; its bytes are its number in the simulation."""

    view: int
    """The view in which it was made."""
    members: tuple[int, ...]
    reports: dict[int, tuple[bool, int]]
    """Frozen, and how many iterations are committed, by node."""


@dataclass
class Process:
    """A process of a node, and what its launcher knows of it; at the same time its application."""

    world: World
    node: int
    birth: int
    machine: Agreement = field(init=False)
    is_stopped: bool = False
    waiting: list[Callable[[], list[Outgoing]]] = field(default_factory=list)
    """Events that come while it is stopped."""
    tick_at: float = float("inf")
    first_view: int = -1
    told: Decided | None = None
    view: int = -1
    committed: int = 0
    is_frozen: bool = False
    joiners: set[int] = field(default_factory=set)
    dies: str = ""
    """How the process will die in its next event that does something."""

    def report(self, urgent: bool) -> bytes:
        self.is_frozen = self.is_frozen or urgent
        return b"%d %d" % (self.is_frozen, self.committed)

    def propose(self, reports: dict[int, bytes], lost: frozenset[int]) -> bytes:
        world = self.world
        if self.node not in reports or lost & reports.keys() or lost | reports.keys() != set(self.machine.members):
            raise ViolationError("reports and lost are not the members")
        found = {node: tuple(map(int, report.split())) for node, report in reports.items()}
        members = {*reports, *self.joiners}
        if world.has_faults and world.random.random() < 0.05 and len(members) > 2:
            members.discard(world.random.choice(sorted(members - {self.node})))
            world.counts["left out by the application"] += 1
        values = world.values
        values.append(Value(self.view, tuple(sorted(members)), {n: (bool(f), c) for n, (f, c) in found.items()}))
        return b"%d" % (len(values) - 1)

    def acceptable(self, value: bytes) -> bool:
        return int(value) < len(self.world.values)

    def members_of(self, value: bytes) -> tuple[int, ...]:
        return self.world.values[int(value)].members

    def adopt(self, number: int, value: bytes) -> None:
        if self.dies == "before it tells":
            raise EndedError
        decision = self.machine.decision
        assert decision is not None
        assert (decision.view, decision.proposal.value) == (number, value)
        self.world.check_adoption(self, decision)
        self.told, self.view = decision, number
        self.is_frozen = False
        self.joiners.clear()

    def excluded(self, number: int) -> None:
        if self.dies == "before it tells":
            raise EndedError
        self.told = self.machine.decision
        if self.told is not None and self.told.view == number:
            self.world.check_decision(self.told)
        decided = self.world.adopted.get(number)
        if decided is None or (self.node, self.birth) in decided.proposal.members:
            raise ViolationError(f"node {self.node} is told that it is not in view {number}")
        self.world.counts["excluded"] += 1
        self.world.at(self.world.random.random(), lambda: self.world.come_back(self))

    def joining(self, node: int) -> None:
        self.joiners.add(node)
        self.world.at(0.1, lambda: self.world.event(self, lambda now: self.machine.want_change(now)))

    def no_majority(self, reachable: tuple[int, ...], members: tuple[int, ...]) -> None:
        self.world.counts["no majority"] += 1


class World:
    """Nodes, network, launchers and faults of one seed."""

    def __init__(self, seed: int, machine: type[Agreement] = Agreement) -> None:
        self.random = random.Random(seed)
        self.machine = machine
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.sequence = 0
        self.counts: Counter[str] = Counter()
        self.values: list[Value] = []
        self.adopted: dict[int, Decided] = {}
        self.nodes = self.random.choice([2, 3, 3, 4, 4, 5, 5, 6, 7])
        self.births = 0
        self.has_faults = True
        self.are_deaths_told = self.random.random() < 0.85
        self.loss = self.random.choice([0, 0.05, 0.2, 0.4])
        self.delay_s = self.random.choice([0.01, 0.1, 0.5])
        self.late = self.random.choice([0, 0.02, 0.2])
        self.quiet = self.random.choice([0.5, 1.5, 4.0])
        self.deadliness = self.random.choice([0.05, 0.15, 0.3])
        """Of all faults."""
        self.sides: dict[int, int] = dict.fromkeys(range(self.nodes), 0)
        self.deaths: list[tuple[Death, Decided | None]] = []
        self.processes: dict[int, Process] = {}
        first = self.random.randrange(2, self.nodes + 1) if self.random.random() < 0.3 else self.nodes
        for node in range(first):
            self.start(node, 0, tuple(range(first)))
        for node in range(first, self.nodes):
            self.at(self.random.uniform(0, FAULTS_S), lambda node=node: self.start_again(node))

    # Time.

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        self.sequence += 1
        heapq.heappush(self.events, (self.now + delay_s, self.sequence, action))

    def step(self) -> None:
        self.now, _, action = heapq.heappop(self.events)
        action()

    # Processes.

    def start(self, node: int, number: int, members: tuple[int, ...]) -> None:
        process = Process(self, node, self.births if number < 0 else 0)
        self.processes[node] = process
        process.view = process.first_view = number
        process.machine = self.machine(
            node, self.nodes, number, members, process, PATIENCE_S, self.now, birth=process.birth
        )
        for death, decision in self.deaths:
            if death.node == node or self.are_deaths_told:
                self.at(self.random.random(), lambda d=death, v=decision: self.tell_death(process, d, v))
        self.event(process, process.machine.tick)
        self.check_links()

    def start_again(self, node: int) -> None:
        if node not in self.processes:
            self.births += 1
            self.counts["started again"] += 1
            self.start(node, -1, ())

    def come_back(self, process: Process) -> None:
        """Whoever is excluded joins as another."""
        if self.processes.get(process.node) is process:
            self.deaths.append(self.death_of(process))
            del self.processes[process.node]
            self.births += 1
            self.start(process.node, -1, ())

    def event(self, process: Process, action: Callable[[float], list[Outgoing]]) -> None:
        if self.processes.get(process.node) is not process:
            return
        if process.is_stopped:
            process.waiting.append(action)
            return
        try:
            outgoing = action(self.now)
        except EndedError:
            self.kill(process)
            return
        if process.dies and outgoing:
            outgoing = outgoing[: self.random.randrange(len(outgoing) + 1)]
            self.kill(process)
        for receiver, message in outgoing:
            self.send(process.node, receiver, message)
        due = process.machine.next_tick
        if due < process.tick_at and due < 1e9:
            process.tick_at = max(due, self.now)
            self.at(process.tick_at - self.now, lambda: self.tick(process))

    def tick(self, process: Process) -> None:
        if process.tick_at <= self.now:
            process.tick_at = float("inf")
        self.event(process, process.machine.tick)

    # The network.

    def send(self, sender: int, receiver: int, message: object) -> None:
        draw = self.random.random
        if self.has_faults and draw() < self.loss:
            self.counts["lost"] += 1
            return
        for _ in range(2 if self.has_faults and draw() < 0.1 else 1):
            delay = self.delay_s * draw() * 2
            if self.has_faults and draw() < self.late:
                delay += draw() * 20
                self.counts["late"] += 1
            self.at(delay, lambda: self.deliver(sender, receiver, message))

    def deliver(self, sender: int, receiver: int, message: object) -> None:
        process = self.processes.get(receiver)
        if process is None or self.sides[sender] != self.sides[receiver]:
            self.counts["not delivered"] += 1
            return
        self.event(process, lambda now: process.machine.receive(sender, message, now))

    def hears(self, node: int, peer: int) -> bool:
        process = self.processes.get(peer)
        return process is not None and not process.is_stopped and self.sides[node] == self.sides[peer]

    def check_links(self) -> None:
        """Everyone notices later who is silent and who is back."""
        for node, process in list(self.processes.items()):
            for peer in range(self.nodes):
                if peer != node:
                    self.at(self.random.uniform(0.2, 4), lambda n=node, q=peer, p=process: self.check_link(n, q, p))

    def check_link(self, node: int, peer: int, process: Process) -> None:
        machine = process.machine
        if self.hears(node, peer):
            if peer in machine.standing.suspected:
                self.event(process, lambda now: machine.trust(peer, now))
        elif peer not in machine.standing.suspected:
            self.event(process, lambda now: machine.suspect(peer, now))

    # Faults.

    def kill(self, process: Process) -> None:
        if self.processes.get(process.node) is not process:
            return
        del self.processes[process.node]
        self.counts["killed"] += 1
        told = self.death_of(process)
        self.deaths.append(told)
        if self.are_deaths_told:
            for other in list(self.processes.values()):
                delay = self.random.choice([0.05, 1, 8]) * self.random.random()
                self.at(delay, lambda p=other: self.tell_death(p, *told))
        self.check_links()

    def death_of(self, process: Process) -> tuple[Death, Decided | None]:
        """What its launcher knows."""
        view = process.first_view if process.told is None else process.told.view
        return Death(process.node, process.birth, view), process.told

    def tell_death(self, process: Process, death: Death, decision: Decided | None) -> None:
        self.event(process, lambda now: process.machine.certainly_dead(death, decision, now))

    def some(self) -> Process | None:
        """A process; more often than not one that proposes."""
        proposers = [process for process in self.processes.values() if process.machine.ballot is not None]
        if proposers and self.random.random() < 0.5:
            return self.random.choice(proposers)
        return self.random.choice(list(self.processes.values())) if self.processes else None

    def fault(self) -> None:
        draw = self.random.random()
        process = self.some()
        if process is None:
            return
        machine = process.machine
        if draw < self.deadliness:
            how = self.random.choice(["", "", "after some of its messages", "before it tells"])
            process.dies = how
            self.counts[f"killed {how or 'between events'}"] += 1
            if not how:
                self.kill(process)
        elif draw < 0.4 and not process.is_stopped:
            process.is_stopped = True
            self.counts["stopped"] += 1
            self.check_links()
            self.at(self.random.uniform(0.5, 15), lambda: self.go_on(process))
        elif draw < 0.5:
            self.counts["parted"] += 1
            self.sides = {node: self.random.randrange(2) for node in range(self.nodes)}
            self.check_links()
            self.at(self.random.uniform(1, 10), self.heal)
        elif draw < 0.7:
            peer = self.random.randrange(self.nodes)
            if peer != process.node:
                self.counts["wrongly suspected"] += 1
                self.event(process, lambda now: machine.suspect(peer, now))
                self.at(self.random.uniform(0.5, 8), lambda: self.check_link(process.node, peer, process))
        elif draw < 0.8:
            self.counts["change wanted"] += 1
            self.event(process, machine.want_change)
        else:
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

    # What must hold.

    def check_decision(self, decision: Decided) -> None:
        known = self.adopted.setdefault(decision.view, decision)
        if known != decision:
            raise ViolationError(f"view {decision.view} is {known.proposal} and {decision.proposal}")

    def check_adoption(self, process: Process, decision: Decided) -> None:
        self.check_decision(decision)
        if decision.view <= process.view or (process.node, process.birth) not in decision.proposal.members:
            raise ViolationError(f"node {process.node} adopts view {decision.view}")
        value = self.values[int(decision.proposal.value)]
        if value.view != decision.view - 1:
            raise ViolationError(f"view {decision.view} was made for view {value.view + 1}")
        is_urgent = all(frozen for frozen, _ in value.reports.values())
        if is_urgent and process.view == value.view and value.reports[process.node] != (True, process.committed):
            raise ViolationError(f"node {process.node} went on after the report that view {decision.view} was made of")

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
        """Whether somebody alive is in the newest view, and a quorum of each view that may have to act can be had."""
        if not self.adopted:
            members = {process.node: 0 for process in self.processes.values() if process.birth == 0}
            total = sum(1 for process in self.processes.values() if process.birth == 0)
            return bool(members) and self.are_deaths_told and total > 0
        newest = dict(self.adopted[max(self.adopted)].proposal.members)
        living = [p for p in self.processes.values() if newest.get(p.node) == p.birth]
        if self.are_deaths_told:
            return bool(living)
        return 2 * len(living) > len(newest) and any(process.view == max(self.adopted) for process in living)

    def run(self) -> None:
        """Faults, then calm; ViolationError if something is wrong."""
        while self.now < FAULTS_S:
            self.at(self.random.expovariate(1 / self.quiet), lambda: None)
            until = self.events and self.now + self.random.expovariate(1 / self.quiet)
            while self.events and self.events[0][0] < until:
                self.step()
            self.now = max(self.now, min(until, FAULTS_S))
            self.work()
            self.fault()
        self.calm()
        while self.events and self.now < FAULTS_S + CALM_S and not self.is_well():
            for _ in range(10):
                if self.events:
                    self.step()
        if self.must_end_well():
            self.counts["had to end well"] += 1
            if not self.is_well():
                raise ViolationError("not all living nodes are in one view")

    def calm(self) -> None:
        self.has_faults = False
        for process in list(self.processes.values()):
            process.dies = ""
            self.go_on(process)
        self.heal()
