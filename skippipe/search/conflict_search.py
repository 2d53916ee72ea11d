"""Conflict-based search over the microbatches of a round: best first over constraint sets, TC1 first, then TC2.

Each microbatch takes its fastest path under its own constraints; a conflict between them splits the set into one child
a microbatch involved, which alone is planned again (paper, high-level search; Sharon et al. 2015 for CBS; focal list of
Barer et al. 2014 and bypass of Boyarski et al. 2015). Anytime: each constraint set is also completed greedily, and the
simulation of the whole iteration keeps the best.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from skippipe.schedule.arrays import Flags, Floats, Integers
from skippipe.schedule.simulate import step_nodes, step_seconds
from skippipe.search.constraints import stage_table
from skippipe.search.path_search import PathSearch, Window
from skippipe.search.problem import Instance
from skippipe.search.progress import Phase
from skippipe.search.rounds import iteration_s

FOCAL_FACTOR = 1.1
"""Constraint sets whose cost is within this factor of the cheapest one's are taken by their number of conflicts."""
MEAN_WEIGHT = 0.1
"""Cost of a constraint set: the slowest round trip, and this much of the mean one."""
MOST_CHILDREN = 6
"""Microbatches of an overloaded node that get a child each; the slowest to change come last."""


@dataclass(frozen=True)
class Node:
    """A constraint set and the fastest paths under it."""

    paths: Integers
    """(agents, path length); an agent is a microbatch, or an origin whose microbatches share a path."""
    times: Floats
    """Start of each step, (agents, 2K + 1)."""
    blocked: Flags
    """Nodes that each agent may not visit, (agents, nodes)."""
    windows: tuple[tuple[Window, ...], ...]
    """Windows in which each agent may not use a node."""
    cost: float
    conflicts: int


class ConflictSearch:
    """One search: what it knows of the instance, and the best feasible paths so far."""

    def __init__(self, instance: Instance, shared: bool, aware: bool, rng: Generator) -> None:
        """shared: one path an origin instead of one a microbatch; aware: TC2 too."""
        self.instance, self.aware, self.rng = instance, aware, rng
        self.capacity = 1 if shared else instance.pipeline.memory
        self.finder = PathSearch(instance)
        costs, origins = instance.costs, instance.fixed_stages[0]
        self.origins = np.repeat(np.array(origins), self.capacity)
        turn = np.tile(np.arange(self.capacity), len(origins))
        self.release_s = turn * (costs.forward_s[self.origins] + costs.task_gap_s) * aware
        self.stage_of = stage_table(instance.fixed_stages)
        self.best: Integers | None = None
        self.best_seconds = np.inf

    def run(self, phase: Phase) -> Integers | None:
        """The best feasible paths, (agents, path length), found until the phase is over; None if there were none."""
        root = self.root(phase)
        if root is None:
            return None
        open_sets: list[tuple[float, int]] = []
        nodes: dict[int, Node] = {}
        number = 0

        def push(node: Node) -> None:
            nonlocal number
            nodes[number] = node
            heapq.heappush(open_sets, (node.cost, number))
            number += 1

        push(root)
        while phase.left and nodes:
            while open_sets[0][1] not in nodes:
                heapq.heappop(open_sets)
            limit = open_sets[0][0] * FOCAL_FACTOR
            focal = (entry for entry in nodes if nodes[entry].cost <= limit)
            chosen = min(focal, key=lambda entry: (nodes[entry].conflicts, nodes[entry].cost, entry))
            node = nodes.pop(chosen)
            self.complete(node, phase)
            if node.conflicts == 0:
                self.consider(node.paths)
            for child in self.children(node):
                push(child)
            phase.advance(1, self.best_seconds)
        return self.best

    def root(self, phase: Phase) -> Node | None:
        """Every agent on its fastest path, without constraints; None where time or paths run out."""
        agents, nodes = len(self.origins), self.instance.nodes
        blocked: Flags = np.zeros((agents, nodes), dtype=np.bool_)
        length = self.instance.pipeline.path_length
        paths, times = np.empty((agents, length), dtype=np.int64), np.empty((agents, 2 * length + 1))
        for agent in range(agents):
            found = self.finder.find(int(self.origins[agent]), float(self.release_s[agent]), blocked[agent], ())
            if found is None or not phase.left:
                return None
            paths[agent], times[agent] = found
        return self.measured(Node(paths, times, blocked, ((),) * agents, 0.0, 0))

    def measured(self, node: Node) -> Node:
        """The node with its cost and number of conflicts."""
        costs = self.instance.costs
        trips = node.times[:, -1] + costs.backward_s[self.origins]
        over = np.maximum(self.visits(node.paths) - self.capacity, 0).sum()
        clashes = len(self.collisions(node, everything=True)) if self.aware and over == 0 else 0
        cost = float(trips.max() + MEAN_WEIGHT * trips.mean())
        return replace(node, cost=cost, conflicts=int(over) * len(self.origins) + clashes)

    def visits(self, paths: Integers) -> Integers:
        """Agents that visit each node but those of stage 0, (nodes,)."""
        return np.bincount(paths[:, 1:].ravel(), minlength=self.instance.nodes)

    def children(self, node: Node) -> list[Node]:
        """The node split on its most pressing conflict; only a child that costs no more and solves some (bypass)."""
        children: list[Node] = []
        for agent, blocked, window in self.split(node):
            child = self.replanned(node, agent, blocked, window)
            if child is None:
                continue
            if child.cost <= node.cost and child.conflicts < node.conflicts:
                return [child]
            children.append(child)
        return children

    def split(self, node: Node) -> list[tuple[int, list[int], Window | None]]:
        """Constraints, one a child: an agent, the nodes forbidden to it, or the window of a node."""
        stages, visits = self.instance.fixed_stages, self.visits(node.paths)
        excess = [int(visits[list(members)].sum()) - self.capacity * len(members) for members in stages[1:]]
        if max(excess) > 0:
            full = list(stages[1 + int(np.argmax(excess))])
            visitors = np.flatnonzero(np.isin(node.paths, full).any(axis=1))
            return [(int(agent), full, None) for agent in self.rng.permutation(visitors)[:MOST_CHILDREN]]
        if visits.max() > self.capacity:
            busiest = int(np.argmax(visits))
            visitors = np.flatnonzero((node.paths[:, 1:] == busiest).any(axis=1))
            return [(int(agent), [busiest], None) for agent in self.rng.permutation(visitors)[:MOST_CHILDREN]]
        if self.aware and (clashes := self.collisions(node, everything=False)):
            (first, first_window), (second, second_window) = clashes[0]
            return [(first, [], second_window), (second, [], first_window)]
        return []

    def collisions(self, node: Node, everything: bool) -> list[tuple[tuple[int, Window], tuple[int, Window]]]:
        """Pairs of (agent, its window on the node) that overlap, by time; only the first unless everything is asked."""
        costs, length = self.instance.costs, node.paths.shape[1]
        places = step_nodes(node.paths)
        lasts = step_seconds(node.paths, costs) + costs.task_gap_s
        order = np.lexsort((node.times.ravel(), places.ravel()))
        at, begins = places.ravel()[order], node.times.ravel()[order]
        ends = begins + lasts.ravel()[order]
        agents = order // (2 * length + 1)
        clash = (at[1:] == at[:-1]) & (begins[1:] < ends[:-1] - 1e-9) & (agents[1:] != agents[:-1])
        found = np.flatnonzero(clash)
        if not everything and len(found):
            found = found[[int(np.argmin(begins[found]))]]
        return [
            ((int(agents[i]), (int(at[i]), float(begins[i]), float(ends[i]))),
             (int(agents[i + 1]), (int(at[i]), float(begins[i + 1]), float(ends[i + 1]))))
            for i in found
        ]  # fmt: skip

    def replanned(self, node: Node, agent: int, forbidden: list[int], window: Window | None) -> Node | None:
        """A child: one agent planned again under one more constraint; None where it has no path left."""
        blocked = node.blocked.copy()
        blocked[agent, forbidden] = True
        windows = list(node.windows)
        if window is not None:
            windows[agent] = (*windows[agent], window)
        found = self.finder.find(int(self.origins[agent]), float(self.release_s[agent]), blocked[agent], windows[agent])
        if found is None:
            return None
        paths, times = node.paths.copy(), node.times.copy()
        paths[agent], times[agent] = found
        return self.measured(Node(paths, times, blocked, tuple(windows), 0.0, 0))

    def complete(self, node: Node, phase: Phase) -> None:
        """Plan agents one after the other under the node's constraints and the capacity that is left (prioritised)."""
        left = np.full(self.instance.nodes, self.capacity)
        paths = np.empty_like(node.paths)
        taken: list[Window] = []
        for agent in self.rng.permutation(len(self.origins)):
            blocked = node.blocked[agent] | (left <= 0)
            windows = [*node.windows[agent], *taken] if self.aware else node.windows[agent]
            found = self.finder.find(int(self.origins[agent]), float(self.release_s[agent]), blocked, windows)
            if found is None or not phase.left:
                return
            paths[agent], times = found
            left[paths[agent, 1:]] -= 1
            if self.aware:
                taken += self.occupied(paths[agent], times)
        self.consider(paths)

    def occupied(self, path: Integers, times: Floats) -> list[Window]:
        """The windows that one round trip takes."""
        costs = self.instance.costs
        ends = times + step_seconds(path[None], costs)[0] + costs.task_gap_s
        return list(zip(step_nodes(path[None])[0].tolist(), times.tolist(), ends.tolist(), strict=True))

    def consider(self, paths: Integers) -> None:
        """Keep the paths if the simulation of the whole iteration says that they are the best so far."""
        seconds = iteration_s(self.instance, paths)
        if seconds < self.best_seconds:
            self.best, self.best_seconds = paths.copy(), seconds
