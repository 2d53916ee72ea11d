"""Conflict-based search over the microbatches of a round: best first over constraint sets, TC1 first, then TC2.

Each microbatch takes its fastest path under its own constraints; a conflict between them splits the set into one child
a microbatch involved, which alone is planned again (paper, high-level search; Sharon et al. 2015 for CBS; focal list of
Barer et al. 2014 and bypass of Boyarski et al. 2015). Anytime: each constraint set is also completed greedily, and the
simulation of the whole iteration keeps the best. A heuristic, not complete: an overload is split among six microbatches
at most, and a collision keeps either microbatch out of the other's present window, so that a solution in which both
run in each other's windows is lost.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from skippipe.schedule.arrays import Flags, Floats, Integers
from skippipe.schedule.simulate import split_task, step_nodes, step_seconds
from skippipe.search.constraints import even_walks, stage_table
from skippipe.search.path_search import PathSearch, Window
from skippipe.search.problem import Instance
from skippipe.search.progress import Phase
from skippipe.search.rounds import iteration_s

FOCAL_FACTOR = 1.1
"""Constraint sets whose cost is within this factor of the cheapest one's are taken by their number of conflicts."""
MEAN_TRIP_WEIGHT = 0.1
"""Cost of a constraint set: the slowest round trip, and this much of the mean one."""
DETOUR_FACTOR = 1.5
"""How much longer a round trip may be that avoids full nodes."""
MOST_CHILDREN = 6
"""Microbatches of an overloaded node, drawn at random, that get a child each."""

Occupation = tuple[int, Window]
"""An agent, and the window in which it uses a node."""


@dataclass(frozen=True)
class ConstraintSet:
    """What each agent may not use, and the fastest paths under it."""

    paths: Integers
    """(agents, path length); an agent is a microbatch, or an origin whose microbatches share a path."""
    times: Floats
    """Start of each step, (agents, 2K + 1)."""
    blocked: Flags
    """Nodes that each agent may not visit, (agents, nodes)."""
    windows: tuple[tuple[Window, ...], ...]
    """Windows in which each agent may not use a node."""
    cost: float
    """Slowest round trip in seconds, and a part of the mean one."""
    conflicts: int
    """Visits beyond what nodes can hold, weighted, or else collisions."""


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
        by_cost: list[tuple[float, int]] = []
        open_sets: dict[int, ConstraintSet] = {}
        number = 0

        def push(constraint_set: ConstraintSet) -> None:
            nonlocal number
            open_sets[number] = constraint_set
            heapq.heappush(by_cost, (constraint_set.cost, number))
            number += 1

        push(root)
        while phase.left and open_sets:
            while by_cost[0][1] not in open_sets:
                heapq.heappop(by_cost)
            # In turns with the cheapest ones, all may be chosen: else hardly any set is ever free of conflicts, as the
            # nodes hold just as many microbatches as there are.
            limit = by_cost[0][0] * FOCAL_FACTOR if phase.done % 2 else np.inf
            focal = (entry for entry in open_sets if open_sets[entry].cost <= limit)
            chosen = open_sets.pop(
                min(focal, key=lambda entry: (open_sets[entry].conflicts, open_sets[entry].cost, entry))
            )
            self.complete(chosen, phase)
            if chosen.conflicts == 0:
                self.consider(chosen.paths)
            for child in self.children(chosen):
                push(child)
            phase.advance(1, self.best_seconds)
        if self.best is None:
            self.complete_evenly()
        return self.best

    def root(self, phase: Phase) -> ConstraintSet | None:
        """Every agent on its fastest path, without constraints; None if time or paths run out."""
        agents, nodes = len(self.origins), self.instance.nodes
        blocked: Flags = np.zeros((agents, nodes), dtype=np.bool_)
        length = self.instance.pipeline.path_length
        paths, times = np.empty((agents, length), dtype=np.int64), np.empty((agents, 2 * length + 1))
        for agent in range(agents):
            found = self.finder.find(int(self.origins[agent]), float(self.release_s[agent]), blocked[agent], ())
            if found is None or not phase.left:
                return None
            paths[agent], times[agent] = found
        return self.measured(paths, times, blocked, ((),) * agents)

    def measured(
        self, paths: Integers, times: Floats, blocked: Flags, windows: tuple[tuple[Window, ...], ...]
    ) -> ConstraintSet:
        """The constraint set of these constraints and paths, with its cost and number of conflicts."""
        trips = times[:, -1] + self.instance.costs.backward_s[self.origins]
        over = np.maximum(self.visits(paths) - self.capacity, 0).sum()
        clashes = len(self.collisions(paths, times, everything=True)) if self.aware and over == 0 else 0
        cost = float(trips.max() + MEAN_TRIP_WEIGHT * trips.mean())
        return ConstraintSet(paths, times, blocked, windows, cost, int(over) * len(self.origins) + clashes)

    def visits(self, paths: Integers) -> Integers:
        """Agents that visit each node but those of stage 0, (nodes,)."""
        return np.bincount(paths[:, 1:].ravel(), minlength=self.instance.nodes)

    def children(self, parent: ConstraintSet) -> list[ConstraintSet]:
        """The set split on its most pressing conflict; only a child that costs no more and solves some (bypass)."""
        children: list[ConstraintSet] = []
        for agent, blocked, window in self.split(parent):
            child = self.replanned(parent, agent, blocked, window)
            if child is None:
                continue
            if child.cost <= parent.cost and child.conflicts < parent.conflicts:
                return [child]
            children.append(child)
        return children

    def split(self, parent: ConstraintSet) -> list[tuple[int, list[int], Window | None]]:
        """Constraints, one a child: an agent, the nodes forbidden to it, or the window of a node."""
        stages, visits = self.instance.fixed_stages, self.visits(parent.paths)
        excess = [int(visits[list(members)].sum()) - self.capacity * len(members) for members in stages[1:]]
        if max(excess) > 0:
            full = list(stages[1 + int(np.argmax(excess))])
            visitors = np.flatnonzero(np.isin(parent.paths, full).any(axis=1))
            return [(int(agent), full, None) for agent in self.rng.permutation(visitors)[:MOST_CHILDREN]]
        if visits.max() > self.capacity:
            busiest = int(np.argmax(visits))
            visitors = np.flatnonzero((parent.paths[:, 1:] == busiest).any(axis=1))
            return [(int(agent), [busiest], None) for agent in self.rng.permutation(visitors)[:MOST_CHILDREN]]
        if self.aware and (clashes := self.collisions(parent.paths, parent.times, everything=False)):
            (first, first_window), (second, second_window) = clashes[0]
            return [(first, [], second_window), (second, [], first_window)]
        return []

    def collisions(self, paths: Integers, times: Floats, everything: bool) -> list[tuple[Occupation, Occupation]]:
        """Pairs of occupations of a node that overlap, by time; only the first unless everything is asked."""
        costs = self.instance.costs
        places = step_nodes(paths)
        lasts = step_seconds(paths, costs) + costs.task_gap_s
        order = np.lexsort((times.ravel(), places.ravel()))
        at, begins = places.ravel()[order], times.ravel()[order]
        ends = begins + lasts.ravel()[order]
        agents, _ = split_task(order, paths.shape[1])
        clash = (at[1:] == at[:-1]) & (begins[1:] < ends[:-1] - 1e-9) & (agents[1:] != agents[:-1])
        found = np.flatnonzero(clash)
        if not everything and len(found):
            found = found[[int(np.argmin(begins[found]))]]

        def occupation(i: int) -> Occupation:
            return int(agents[i]), (int(at[i]), float(begins[i]), float(ends[i]))

        return [(occupation(i), occupation(i + 1)) for i in found.tolist()]

    def replanned(
        self, parent: ConstraintSet, agent: int, forbidden: list[int], window: Window | None
    ) -> ConstraintSet | None:
        """A child: one agent planned again under one more constraint; None if it has no path left.

        Round the nodes that the others fill if that does not take much longer (low level of Barer et al. 2014).
        """
        blocked = parent.blocked.copy()
        blocked[agent, forbidden] = True
        windows = list(parent.windows)
        if window is not None:
            windows[agent] = (*windows[agent], window)
        origin, release_s = int(self.origins[agent]), float(self.release_s[agent])
        found = self.finder.find(origin, release_s, blocked[agent], windows[agent])
        if found is None:
            return None
        full = self.visits(np.delete(parent.paths, agent, axis=0)) >= self.capacity
        round_about = self.finder.find(origin, release_s, blocked[agent] | full, windows[agent])
        if round_about and round_about[1][-1] - release_s <= DETOUR_FACTOR * (found[1][-1] - release_s):
            found = round_about
        paths, times = parent.paths.copy(), parent.times.copy()
        paths[agent], times[agent] = found
        return self.measured(paths, times, blocked, tuple(windows))

    def complete(self, chosen: ConstraintSet, phase: Phase) -> None:
        """Plan agents one after the other under the set's constraints and the capacity that is left (prioritised)."""
        left = np.full(self.instance.nodes, self.capacity)
        paths = np.empty_like(chosen.paths)
        taken: list[Window] = []
        for agent in self.rng.permutation(len(self.origins)):
            blocked = chosen.blocked[agent] | (left <= 0)
            windows = [*chosen.windows[agent], *taken] if self.aware else chosen.windows[agent]
            found = self.finder.find(int(self.origins[agent]), float(self.release_s[agent]), blocked, windows)
            if found is None or not phase.left:
                return
            paths[agent], times = found
            left[paths[agent, 1:]] -= 1
            if self.aware:
                taken += self.occupied(paths[agent], times)
        self.consider(paths)

    def complete_evenly(self) -> None:
        """Plan agents one after the other, each on the stages of a walk drawn so that all visits are even.

        There is always room for such walks, however little is left: some solution rather than none.
        """
        stages = self.instance.fixed_stages
        walks = even_walks(self.instance.rules, len(stages), len(self.origins), self.rng)
        left = np.full(self.instance.nodes, self.capacity)
        paths = np.empty((len(self.origins), walks.shape[1]), dtype=np.int64)
        taken: list[Window] = []
        for agent, walk in enumerate(walks):
            blocked = (left <= 0) | ~np.isin(self.stage_of, walk)
            windows = taken if self.aware else ()
            found = self.finder.find(int(self.origins[agent]), float(self.release_s[agent]), blocked, windows)
            assert found is not None, "even walks leave room for each other"
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
