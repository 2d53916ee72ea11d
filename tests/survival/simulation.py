"""Simulated nodes that agree on views, with faults at random moments, and what must hold whatever comes."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable

from skippipe.survival.agreement import Agreement, Outgoing
from skippipe.survival.messages import Death, Decided, Message
from tests.survival.process import EndedError, Process, Value, ViolationError

PATIENCE_S = 15.0


class World:
    """Nodes, their network and their launchers; the first `first` nodes are the first view's members."""

    loss = 0.0
    """Share of messages that are lost."""
    repeated = 0.0
    """Share that comes twice."""
    late = 0.0
    """Share that comes late, and after later ones."""
    delay_s = 0.1
    """Of an ordinary message, on average."""
    left_out = 0.0
    """Share of proposals without somebody who reported."""
    joining_again = 0.0
    """Share of those that are left out and ask to join again as the same process."""
    are_deaths_told = True
    """Whether launchers tell others of deaths."""
    are_decisions_told = True
    """Whether they also tell what the dead had adopted."""

    def __init__(self, seed: int, nodes: int, first: int, machine: type[Agreement] = Agreement) -> None:
        self.random = random.Random(seed)
        self.machine = machine
        self.nodes, self.first = nodes, first
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.sequence = 0
        self.births = 0
        self.counts: Counter[str] = Counter()
        """Of each fault and of what else happened."""
        self.values: list[Value] = []
        self.adopted: dict[int, Decided] = {}
        self.sides: dict[int, int] = dict.fromkeys(range(nodes), 0)
        """Of a network that is cut in two."""
        self.deaths: list[tuple[Death, Decided | None]] = []
        self.processes: dict[int, Process] = {}

    def begin(self) -> None:
        """Start the members of the first view."""
        for node in range(self.first):
            self.start(node, 0, tuple(range(self.first)))

    # Time.

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        self.sequence += 1
        heapq.heappush(self.events, (self.now + delay_s, self.sequence, action))

    def step(self) -> None:
        self.now, _, action = heapq.heappop(self.events)
        action()

    # Processes.

    def start(self, node: int, number: int, members: tuple[int, ...]) -> None:
        process = self.new_process(node, self.births if number < 0 else 0)
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

    def new_process(self, node: int, birth: int) -> Process:
        return Process(self, node, birth)

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

    def send(self, sender: int, receiver: int, message: Message) -> None:
        draw = self.random.random
        self.counts["sent"] += 1
        if draw() < self.loss:
            self.counts["lost"] += 1
            return
        copies = 2 if draw() < self.repeated else 1
        self.counts["repeated"] += copies - 1
        for _ in range(copies):
            delay = self.delay_s * draw() * 2
            if draw() < self.late:
                delay += draw() * self.random.choice([0.5, 3, 20])
                self.counts["late"] += 1
            self.at(delay, lambda: self.deliver(sender, receiver, message))

    def deliver(self, sender: int, receiver: int, message: Message) -> None:
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

    def kill(self, process: Process) -> None:
        if self.processes.get(process.node) is not process:
            return
        del self.processes[process.node]
        self.counts["killed"] += 1
        told = self.death_of(process)
        self.deaths.append(told)
        for other in list(self.processes.values()) if self.are_deaths_told else []:
            delay = self.random.choice([0.05, 1, 8]) * self.random.random()
            self.at(delay, lambda p=other: self.tell_death(p, *told))
        self.check_links()

    def death_of(self, process: Process) -> tuple[Death, Decided | None]:
        """What its launcher knows."""
        view = process.first_view if process.told is None else process.told.view
        return Death(process.node, process.birth, view), process.told if self.are_decisions_told else None

    def tell_death(self, process: Process, death: Death, decision: Decided | None) -> None:
        self.event(process, lambda now: process.machine.certainly_dead(death, decision, now))

    # What must hold.

    def check_decision(self, decision: Decided) -> None:
        """Never two for one number, by anyone who learned one and told its launcher, however soon it died."""
        known = self.adopted.setdefault(decision.view, decision)
        if known != decision:
            raise ViolationError(f"view {decision.view} is {known.proposal} and {decision.proposal}")

    def check_adoption(self, process: Process, decision: Decided) -> None:
        """Views ascend and name who begins them; an urgent one saw the frozen report of each old member it names."""
        self.check_decision(decision)
        if decision.view <= process.view or (process.node, process.birth) not in decision.proposal.members:
            raise ViolationError(f"node {process.node} adopts view {decision.view}")
        value = self.values[int(decision.proposal.value)]
        if value.view != decision.view - 1:
            raise ViolationError(f"view {decision.view} was made for view {value.view + 1}")
        if value.is_urgent and process.view == value.view and value.reports[process.node] != (True, process.committed):
            raise ViolationError(f"node {process.node} went on after the report that view {decision.view} was made of")
