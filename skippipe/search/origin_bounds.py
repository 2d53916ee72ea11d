"""Closer lower bounds for any stages, by which nodes can be origins at once: Lagrangian relaxation, best first.

A schedule of T seconds, whatever its stages, paths and orders, keeps these rules (docs/search.md has the arguments):

- an origin holds at most `memory` microbatches, so that its round trips have only about `memory` x T seconds in all;
- a node that isn't an origin has time for visits from the first arrival there to the last departure from there;
- stage 0 syncs after its last backward, over its slowest pair; no origin is a relay.

Every visit of a node gets a price, every origin's seconds a weight. A path then costs its weighted seconds and its
nodes' prices, and the cheapest choice of origins must not cost more than there is; where it does, T is too small.
Whatever the prices and weights, this proves a bound; moving them along a subgradient makes it closer. Cases divide the
choice of the origins, first by the slowest pair of stage 0, then node by node; the case with the least bound is next.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from skippipe.schedule import Plan
from skippipe.schedule.arrays import Floats, Integers
from skippipe.search.bounds import (
    bounds_of_any_stages,
    last_return,
    least_sync_seconds,
    visit_seconds,
    visits_of_a_stage,
)
from skippipe.search.problem import Instance

ROUNDS = (1, 20, 100)
"""Changes of a case's prices: at first, before it is divided, and if all its origins are known."""
WORK = 100_000_000
"""Changes of prices times the cube of the number of nodes: about half a minute on one core."""
MOST_NODES = 64
"""Beyond them a change of prices takes too long for more than a few: the quick bounds stay."""
CLOSE_S = 0.01
"""How closely the largest T that prices disprove is found."""
AHEAD_S, AIM_S, LONGEST_STEP = 0.3, 5.0, 0.05
"""The subgradient is taken so far above the bound; the first step aims so much higher; the longest step."""
WEIGHT_SHARE = 0.05
"""How much weights move beside prices."""
FORCED, FORBIDDEN = 1e6, 1e9
"""Seconds in the assignment for nodes that are origins in any case, and for nodes that can't be."""


@dataclass(frozen=True, eq=False)
class Case:
    """A part of all choices of stage 0: the nodes `inside` are in it, those `outside` are not, the rest is open."""

    inside: frozenset[int]
    outside: frozenset[int]
    sync_s: float
    """Sync of stage 0 in a bound of the step; 0 in one of the iteration."""
    price_s: Floats
    """Price of a visit of each node, (nodes,)."""
    weight: Floats
    """Weight of the seconds of each node's round trips, (nodes,)."""
    bound_s: float


def closer_bounds_of_any_stages(instance: Instance, plan: Plan, rounds: int | None = None) -> tuple[float, float]:
    """Seconds that no iteration and no step can beat, whatever nodes are in which stage of the instance's sizes.

    At least bounds_of_any_stages, and like these takes from the plan its path length and what its origins send. Changes
    prices `rounds` times for each of the two; by default as often as fits half a minute. Up to MOST_NODES nodes.
    """
    iteration_s, step_s = bounds_of_any_stages(instance, plan)
    if plan.path_length < 3 or instance.nodes > MOST_NODES:
        return iteration_s, step_s
    rounds = rounds or WORK // instance.nodes**3
    iteration_s = OriginBounds(instance, plan, sync=False).bound(iteration_s, iteration_s, rounds)
    return iteration_s, OriginBounds(instance, plan, sync=True).bound(iteration_s, max(iteration_s, step_s), rounds)


class OriginBounds:
    """The rules of a schedule of T seconds as a priced sum, and the search for the least T that they leave."""

    def __init__(self, instance: Instance, plan: Plan, sync: bool) -> None:
        costs, size = instance.costs, instance.stage_sizes[0]
        self.instance, self.nodes, self.path_length = instance, instance.nodes, plan.path_length
        self.sends = np.array([0] * (size - len(plan.sends)) + sorted(plan.sends.values()))
        self.held = np.minimum(self.sends, instance.pipeline.memory)
        self.links_s = costs.hop_s + costs.hop_s.T
        np.fill_diagonal(self.links_s, np.inf)
        self.work_s, self.visit_s = costs.forward_s + costs.backward_s, visit_seconds(instance)
        hop_s = np.where(np.eye(self.nodes, dtype=bool), np.inf, costs.hop_s)
        self.arrive_s = (costs.forward_s[:, None] + hop_s).min(axis=0) - costs.task_gap_s
        self.leave_s = (hop_s + costs.backward_s).min(axis=1)
        self.most_visits = visits_of_a_stage(plan) + 1
        self.pair_sync_s, self.own_sync_s = np.zeros((self.nodes, self.nodes)), np.zeros(self.nodes)
        if sync:
            self.pair_sync_s, self.own_sync_s = instance.pair_sync_s[0], least_sync_seconds(instance)[1:].min(axis=0)
        # The nodes that are nearest to others first: without them little is left of the choice of the origins.
        self.ranking = np.argsort(np.sort(self.links_s, axis=1)[:, : plan.path_length].sum(axis=1), kind="stable")

    def bound(self, iteration_s: float, start_s: float, rounds: int) -> float:
        """Seconds that nothing beats, after about `rounds` changes of prices; the first two are such bounds too."""
        numbers = itertools.count()
        queue = [(max(start_s, iteration_s + case.sync_s), next(numbers), 0, case) for case in self.first_cases()]
        heapq.heapify(queue)
        while rounds > 0:
            bound_s, _, looks, case = heapq.heappop(queue)
            known = len(case.inside) == len(self.sends)
            if looks < (3 if known else 2):
                case = self.improved(replace(case, bound_s=bound_s), ROUNDS[looks])
                heapq.heappush(queue, (case.bound_s, next(numbers), looks + 1, case))
                rounds -= ROUNDS[looks]
            elif known:
                return bound_s
            else:
                for part in self.divided(case):
                    heapq.heappush(queue, (bound_s, next(numbers), 0, part))
        return queue[0][0]

    def first_cases(self) -> list[Case]:
        """One case for each pair of nodes as the slowest of stage 0; a single one where the sync doesn't count."""
        everything = Case(frozenset(), frozenset(), 0.0, np.full(self.nodes, 0.1), np.ones(self.nodes), 0.0)
        if len(self.sends) < 2 or not self.pair_sync_s.any():
            return [everything]
        chosen = [
            self.with_origins(replace(everything, sync_s=float(self.pair_sync_s[pair])), pair)
            for pair in itertools.combinations(range(self.nodes), 2)
        ]
        return [case for case in chosen if case]

    def with_origins(self, case: Case, origins: tuple[int, ...]) -> Case | None:
        """The part of a case in which these nodes are in stage 0; None if too few others have a sync as fast."""
        rows = list(origins)
        slower = {int(node) for node in np.flatnonzero(self.pair_sync_s[rows].max(axis=0) > case.sync_s)}
        inside, outside = case.inside.union(origins), case.outside.union(slower)
        if inside & outside or self.nodes - len(outside) < len(self.sends):
            return None
        return replace(case, inside=inside, outside=outside)

    def divided(self, case: Case) -> list[Case]:
        """Parts of a case, one for each open node as the first in the ranking to be in stage 0."""
        parts = []
        for node in self.ranking.tolist():
            if node not in case.inside | case.outside:
                parts.append(self.with_origins(case, (node,)))
                case = replace(case, outside=case.outside | {node})
        return [part for part in parts if part]

    def improved(self, case: Case, rounds: int) -> Case:
        """The case with its prices and weights moved, and the closest bound found on the way."""
        least_s, bound_s, highest = self.least_seconds(case), case.bound_s, -math.inf
        for number in range(rounds):
            path_s, relays = self.cheapest_paths(case)
            if self.excess(case, bound_s + CLOSE_S, path_s, least_s)[0] > 0:
                bound_s, highest = self.largest(case, bound_s + CLOSE_S, path_s, least_s), -math.inf
            ahead_s = bound_s + AHEAD_S
            excess_s, chosen = self.excess(case, ahead_s, path_s, least_s)
            if not math.isfinite(excess_s):
                ahead_s = bound_s + CLOSE_S
                excess_s, chosen = self.excess(case, ahead_s, path_s, least_s)
            visits, seconds = self.subgradient(case, ahead_s, relays, chosen)
            highest = max(highest, excess_s)
            steepness = float(visits @ visits + WEIGHT_SHARE * seconds @ seconds) + 1e-9
            step = min((highest - excess_s + AIM_S * 0.95**number) / steepness, LONGEST_STEP)
            price_s = np.maximum(0.0, case.price_s + step * visits)
            weight = np.maximum(1e-3, case.weight + step * WEIGHT_SHARE * seconds)
            case = replace(case, price_s=price_s / weight.mean(), weight=weight / weight.mean())
        return replace(case, bound_s=bound_s)

    def least_seconds(self, case: Case) -> Floats:
        """Seconds from the first forward that each slot of stage 0 needs on each node at least, (slots, nodes).

        The chain of its round trips over nodes that aren't `inside`, and its own work.
        """
        free = replace(case, price_s=np.zeros(self.nodes), weight=np.ones(self.nodes))
        trips_s, _ = self.cheapest_paths(free)
        busy_s = self.visit_s + self.instance.costs.loss_s + self.instance.costs.task_gap_s
        chains = {
            count: [last_return(self.instance, node, count, trips_s[node]) for node in range(self.nodes)]
            for count in set(self.sends.tolist()) - {0}
        }
        chains[0] = [0.0] * self.nodes
        own_s = self.sends[:, None] * busy_s - self.instance.costs.task_gap_s
        return np.maximum(
            [chains[count] for count in self.sends.tolist()], np.where(self.sends[:, None] > 0, own_s, 0.0)
        )

    def cheapest_paths(self, case: Case) -> tuple[Floats, Integers]:
        """Seconds and prices of the cheapest path from each node, (nodes,), and its relays, (nodes, path length - 1).

        A path doesn't go back to the node that it came from, so that paths of up to four nodes visit none twice; longer
        ones may, which only makes them cheaper.
        """
        everyone = np.arange(self.nodes)
        links_s = case.weight[:, None, None] * self.links_s
        from_origin_s = links_s[everyone, everyone]
        relay_s = case.weight[:, None] * self.work_s + case.price_s
        relay_s[everyone, everyone] = np.inf
        relay_s[:, sorted(case.inside)] = np.inf
        # The cheapest way from an origin to node b if a comes just before, (origins, a, b); b itself at first.
        way_s = np.where(everyone[:, None] == everyone, from_origin_s[:, :, None] + relay_s[:, :, None], np.inf)
        before: list[Integers] = []
        for _ in range(self.path_length - 2):
            first = way_s.argmin(axis=1)
            first_s = np.take_along_axis(way_s, first[:, None], axis=1)[:, 0]
            np.put_along_axis(way_s, first[:, None], np.inf, axis=1)
            second = way_s.argmin(axis=1)
            second_s = np.take_along_axis(way_s, second[:, None], axis=1)[:, 0]
            # From a on to b: by the best node before a, or the second best if that is b.
            back = first[:, :, None] == everyone
            before.append(np.where(back, second[:, :, None], first[:, :, None]))
            way_s = np.where(back, second_s[:, :, None], first_s[:, :, None]) + links_s + relay_s[:, None, :]
        end_s = (way_s + from_origin_s[:, None, :]).reshape(self.nodes, -1)
        last = end_s.argmin(axis=1)
        node, current = last // self.nodes, last % self.nodes
        relays = [current]
        for step in reversed(before):
            relays.append(node)
            node, current = step[everyone, node, current], node
        own_s = case.weight * (self.work_s + self.instance.costs.loss_s)
        return end_s[everyone, last] + own_s, np.stack(relays, axis=1)

    def visits_until(self, case: Case, seconds: float) -> Floats:
        """Visits that each node has time for in a schedule of these seconds if it is no origin, (nodes,)."""
        left_s = seconds - self.arrive_s - np.maximum(self.leave_s + case.sync_s, self.own_sync_s)
        return np.asarray(np.clip(np.floor(left_s / self.visit_s + 1e-9), 0, self.most_visits))

    def room_s(self, case: Case, seconds: float) -> Floats:
        """Seconds that the round trips of each slot of stage 0 have on each node, (slots, nodes).

        `held` at once, of which the starts are at least a forward apart, the ends a backward, each with a gap.
        """
        gap_s, held = self.instance.costs.task_gap_s, self.held[:, None]
        apart_s = self.visit_s * held * (held - 1) / 2
        return np.asarray(held * (seconds - case.sync_s + gap_s) - apart_s - self.sends[:, None] * gap_s)

    def excess(self, case: Case, seconds: float, path_s: Floats, least_s: Floats) -> tuple[float, Integers]:
        """By how much the cheapest origins cost more than a schedule of these seconds has, and the node of each slot.

        Not positive for any T that a schedule of the case reaches; infinite if the slots can't be filled.
        """
        free = case.price_s * self.visits_until(case, seconds)
        sends = self.sends[:, None]
        slots_s = np.where(sends > 0, sends * path_s - case.weight * self.room_s(case, seconds), 0.0) + free
        slots_s[least_s + case.sync_s > seconds] = FORBIDDEN
        slots_s[:, sorted(case.outside)] = FORBIDDEN
        slots_s[:, sorted(case.inside)] -= FORCED
        slots, chosen = linear_sum_assignment(slots_s)
        total_s = float(slots_s[slots, chosen].sum()) + FORCED * len(case.inside)
        return (math.inf if total_s > FORBIDDEN / 2 else total_s - float(free.sum()) - 1e-6), chosen

    def largest(self, case: Case, low_s: float, path_s: Floats, least_s: Floats) -> float:
        """The largest T, found to CLOSE_S, that prices and weights disprove; low_s is one."""
        gap_s = 1.0
        while self.excess(case, low_s + gap_s, path_s, least_s)[0] > 0:
            low_s, gap_s = low_s + gap_s, 2 * gap_s
        while gap_s > CLOSE_S:
            gap_s /= 2
            if self.excess(case, low_s + gap_s, path_s, least_s)[0] > 0:
                low_s += gap_s
        return low_s

    def subgradient(self, case: Case, seconds: float, relays: Integers, chosen: Integers) -> tuple[Floats, Floats]:
        """Visits that the cheapest paths ask of each node above what it has time for, and an origin's seconds too many.

        Both (nodes,).
        """
        visits = -self.visits_until(case, seconds)
        visits[chosen] = 0.0
        np.add.at(visits, relays[chosen], self.sends[:, None])
        walks = np.column_stack([chosen, relays[chosen], chosen])
        trips_s = self.links_s[walks[:, :-1], walks[:, 1:]].sum(axis=1) + self.work_s[walks[:, :-1]].sum(axis=1)
        trips_s += self.instance.costs.loss_s[chosen]
        over_s = np.zeros(self.nodes)
        room_s = self.room_s(case, seconds)[np.arange(len(chosen)), chosen]
        over_s[chosen] = np.where(self.sends > 0, self.sends * trips_s - room_s, 0.0)
        return visits, over_s
