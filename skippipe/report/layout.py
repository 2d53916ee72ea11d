"""Places for a picture of paths: nodes in a column a stage, and hops that run in lanes past the stages they skip."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array

from skippipe.schedule import Plan

NODE_HEIGHT, NODE_GAP, LANE_GAP, LINE_GAP = 0.36, 0.24, 0.15, 0.06
"""Least height of a node's box, and free space between boxes, between box and lane, and between lines, in inches."""
COLUMN_GAP = 1.0
"""Width between two columns of nodes, where lines bend, in inches."""
WIDEST_LINE, LINE_STEP = 0.09, 0.02
"""Width of the widest line and at most of one microbatch, in inches."""
ORDER_SWEEPS, EXCHANGE_PASSES = 16, 12
"""How often columns are ordered by their neighbours, and adjacent items exchanged each time."""
STRAIGHTNESS = {0: 8.0, 1: 2.0, 2: 1.0}
"""Weight of a line's piece between columns by the number of its ends that are nodes: a lane bends least."""
COMPACTNESS = 1e-3
"""Weight of a column's height, and of the whole picture's, beside those."""

Point = tuple[float, float]


class Hop(NamedTuple):
    """Microbatches of one origin that go from one node to the next."""

    origin: int
    sender: int
    receiver: int


class Route(NamedTuple):
    """A hop as it is drawn: straight lines past nodes, level bends between columns."""

    hop: Hop
    microbatches: int
    width: float
    corners: tuple[Point, ...]
    """Its ends at the boxes' sides, and between them where each skipped column begins and ends."""

    @property
    def is_swap(self) -> bool:
        """Whether it steps back to a stage that was passed over."""
        return self.corners[-1][0] < self.corners[0][0]


@dataclass(frozen=True)
class Picture:
    """Places of nodes and routes in inches, x from the left and y downwards."""

    boxes: dict[int, tuple[Point, float]]
    """Centre and height of each node's box."""
    box_width: float
    columns: tuple[float, ...]
    """Middle of each stage's column."""
    height: float
    routes: tuple[Route, ...]

    @property
    def width(self) -> float:
        """From the left side of the first column to the right side of the last."""
        return self.columns[-1] + self.box_width / 2


def place_paths(plan: Plan, box_width: float) -> Picture:
    """Place a plan's nodes and hops so that no line meets a box but at its own two ends."""
    counts = Counter(Hop(path[0], a, b) for path in plan.paths for a, b in pairwise(path))
    step = min(LINE_STEP, WIDEST_LINE / max(counts.values()))
    grid = Grid(plan.stages, {hop: step * count for hop, count in sorted(counts.items())})
    grid.order_columns()
    grid.place_ports()
    height = grid.straighten()
    columns = tuple(box_width / 2 + stage * (box_width + COLUMN_GAP) for stage in range(len(plan.stages)))
    boxes = {
        node: ((columns[stage], grid.y[node]), grid.height[node])
        for stage, nodes in enumerate(plan.stages)
        for node in nodes
    }
    routes = tuple(
        Route(hop, counts[hop], grid.widths[hop], tuple(corners(grid, hop, columns, box_width / 2)))
        for hop in grid.chains
    )
    return Picture(boxes, box_width, columns, height, routes)


def corners(grid: Grid, hop: Hop, columns: Sequence[float], half: float) -> Iterable[Point]:
    """Corners of a hop's route; `half` is half of a column's width."""
    chain = grid.chains[hop]
    side = half if grid.column[hop.receiver] > grid.column[hop.sender] else -half
    for here, there in pairwise(chain):
        yield columns[grid.column[here]] + side, grid.y[here] + grid.ports.get((here, there, hop), 0.0)
        yield columns[grid.column[there]] - side, grid.y[there] + grid.ports.get((there, here, hop), 0.0)


class Grid:
    """Columns of items, which are nodes and the lanes of hops that skip the column, being ordered and placed.

    Items are numbers: a node's own, and above those one for each lane.
    """

    def __init__(self, stages: Sequence[Sequence[int]], widths: dict[Hop, float]) -> None:
        self.widths = widths
        self.columns = [list(nodes) for nodes in stages]
        self.column = {node: stage for stage, nodes in enumerate(stages) for node in nodes}
        self.nodes = set(self.column)
        self.height = dict.fromkeys(self.nodes, NODE_HEIGHT)
        self.chains: dict[Hop, list[int]] = {}
        self.neighbours: dict[int, list[tuple[int, Hop]]] = {node: [] for node in self.nodes}
        self.ports: dict[tuple[int, int, Hop], float] = {}
        """Where a hop meets a node's box, above or below its middle, by node, neighbour and hop."""
        for hop in widths:
            self.add_chain(hop)
        self.y = {item: 0.0 for column in self.columns for item in column}
        for column in self.columns:
            self.settle(column, {item: 0.0 for item in column})

    def add_chain(self, hop: Hop) -> None:
        """A lane in each column between sender and receiver, each item the neighbour of the next."""
        begin, end = self.column[hop.sender], self.column[hop.receiver]
        step = 1 if end > begin else -1
        chain = [hop.sender]
        for column in range(begin + step, end, step):
            lane = max(self.nodes) + 1 + len(self.height) - len(self.nodes)
            self.columns[column].append(lane)
            self.column[lane], self.height[lane], self.neighbours[lane] = column, self.widths[hop], []
            chain.append(lane)
        chain.append(hop.receiver)
        for here, there in pairwise(chain):
            self.neighbours[here].append((there, hop))
            self.neighbours[there].append((here, hop))
        self.chains[hop] = chain

    def distance(self, above: int, below: int) -> float:
        """Least distance between the middles of two items of a column."""
        nodes = (above in self.nodes) + (below in self.nodes)
        return (self.height[above] + self.height[below]) / 2 + (LINE_GAP, LANE_GAP, NODE_GAP)[nodes]

    def settle(self, column: list[int], wanted: dict[int, float]) -> None:
        """Move items as near as can be (least squares) to the wanted y, in their order and with their distances.

        With the distances taken out this is isotonic regression, by pooling adjacent violators.
        """
        shift, shifts = 0.0, [0.0]
        for above, below in pairwise(column):
            shift += self.distance(above, below)
            shifts.append(shift)
        blocks: list[tuple[float, int]] = []  # mean and number of items
        for item, moved in zip(column, shifts, strict=True):
            mean, number = wanted[item] - moved, 1
            while blocks and blocks[-1][0] > mean:
                other, more = blocks.pop()
                mean, number = (number * mean + more * other) / (number + more), number + more
            blocks.append((mean, number))
        means = [mean for mean, number in blocks for _ in range(number)]
        for item, mean, moved in zip(column, means, shifts, strict=True):
            self.y[item] = mean + moved

    def order_columns(self) -> None:
        """Order columns so that few lines cross: by the mean of neighbours, then by exchanging adjacent items."""
        best, fewest = [list(column) for column in self.columns], self.crossings()
        for sweep in range(ORDER_SWEEPS):
            forth = sweep % 2 == 0
            for place in range(len(self.columns)) if forth else reversed(range(len(self.columns))):
                side = place - 1 if forth else place + 1
                wanted = {item: self.mean_of_neighbours(item, side) for item in self.columns[place]}
                self.columns[place].sort(key=lambda item: wanted[item])
                self.settle(self.columns[place], wanted)
                self.exchange(place)
            if (number := self.crossings()) < fewest:
                best, fewest = [list(column) for column in self.columns], number
        self.columns = best
        for column in best:
            self.settle(column, {item: self.y[item] for item in column})

    def mean_of_neighbours(self, item: int, column: int) -> float:
        """Mean y of an item's neighbours in a column; its own y if it has none there."""
        places = [self.y[other] for other, _ in self.neighbours[item] if self.column[other] == column]
        return sum(places) / len(places) if places else self.y[item]

    def exchange(self, place: int) -> None:
        """Exchange adjacent items of a column for as long as fewer lines cross."""
        column = self.columns[place]
        rank = {item: number for other in self.columns for number, item in enumerate(other)}
        for _ in range(EXCHANGE_PASSES):
            changed = False
            for upper in range(len(column) - 1):
                a, b = column[upper], column[upper + 1]
                if self.crossings_of(a, b, rank) > self.crossings_of(b, a, rank):
                    column[upper : upper + 2] = [b, a]
                    changed = True
            if not changed:
                break
        self.settle(column, {item: self.y[item] for item in column})

    def crossings_of(self, upper: int, lower: int, rank: dict[int, int]) -> int:
        """Crossings of the lines of two items of a column, the one above the other."""
        return sum(
            rank[a] > rank[b] and self.column[a] == self.column[b]
            for a, _ in self.neighbours[upper]
            for b, _ in self.neighbours[lower]
        )

    def crossings(self) -> int:
        """Crossings of lines between all columns."""
        rank = {item: number for column in self.columns for number, item in enumerate(column)}
        total = 0
        for place, column in enumerate(self.columns):
            above: list[int] = []
            for item in column:
                ends = sorted(rank[other] for other, _ in self.neighbours[item] if self.column[other] == place + 1)
                total += sum(len(above) - bisect.bisect_right(above, end) for end in ends)
                for end in ends:
                    bisect.insort(above, end)
        return total

    def place_ports(self) -> None:
        """Spread lines over the sides of boxes that they meet, in the order of their other ends; boxes grow to fit."""
        rank = {item: number for column in self.columns for number, item in enumerate(column)}
        for node in self.nodes:
            for step in (-1, 1):
                side = self.column[node] + step
                lines = [(other, hop) for other, hop in self.neighbours[node] if self.column[other] == side]
                lines.sort(key=lambda line: (rank[line[0]], line[1]))
                room = sum(self.widths[hop] + LINE_GAP for _, hop in lines)
                self.height[node] = max(self.height[node], room + LINE_GAP)
                y = -room / 2
                for other, hop in lines:
                    self.ports[node, other, hop] = y + (self.widths[hop] + LINE_GAP) / 2
                    y += self.widths[hop] + LINE_GAP

    def straighten(self) -> float:
        """Move items along their columns, order kept, until lines are as level as they get; returns the height.

        A linear program: the least sum of rises of all pieces of lines, wide ones counting more, and then the least
        height. A sum of rises, unlike one of squares, leaves few lines that bend at all.
        """
        pieces = [(here, there, hop) for hop, chain in self.chains.items() for here, there in pairwise(chain)]
        items = len(self.column)
        height = items + len(pieces)
        cost = np.full(height + 1, COMPACTNESS)
        cost[:items] = 0.0
        rows: list[dict[int, float]] = []  # each row times the unknowns is at most its limit
        limits: list[float] = []
        for rise, (here, there, hop) in enumerate(pieces, start=items):
            ends = (here in self.nodes) + (there in self.nodes)
            cost[rise] = STRAIGHTNESS[ends] * self.widths[hop] / LINE_STEP
            drop = self.ports.get((there, here, hop), 0.0) - self.ports.get((here, there, hop), 0.0)
            rows += [{here: 1.0, there: -1.0, rise: -1.0}, {here: -1.0, there: 1.0, rise: -1.0}]
            limits += [drop, -drop]
        for column in self.columns:
            cost[column[0]] -= COMPACTNESS
            cost[column[-1]] += COMPACTNESS
            for above, below in pairwise(column):
                rows.append({above: 1.0, below: -1.0})
                limits.append(-self.distance(above, below))
            for item in (column[0], column[-1]):
                rows += [{item: -1.0}, {item: 1.0, height: -1.0}]
                limits += [-self.height[item] / 2] * 2
        entries = [(number, *entry) for number, row in enumerate(rows) for entry in row.items()]
        numbers, unknowns, values = zip(*entries, strict=True)
        matrix = csr_array((values, (numbers, unknowns)), shape=(len(rows), height + 1))
        solution = linprog(cost, A_ub=matrix, b_ub=limits, bounds=(0, None))
        assert solution.success, solution.message
        self.y = {item: float(solution.x[item]) for item in range(items)}
        return float(solution.x[height])
