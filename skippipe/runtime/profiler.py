"""Measures links, compute and all-reduce over the real stack: what `skippipe profile` lets each node's process do.

Pairs of nodes take turns so that no machine is in two measurements at once, since its nodes share its cores. For each
pair a few small messages give the latency, and some of an activation's size, a rest before each, what a hop takes. Two
sizes of longer ones tell the time that grows with the bytes from what a hop takes whatever its size. Each node times
its tasks while the others of its machine rest, and groups of replicas an all-reduce, one group after the other.
"""

from __future__ import annotations

import itertools
import statistics
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import torch

from skippipe.config import ModelConfig, Precision
from skippipe.model.stage import Stage
from skippipe.runtime.endpoint import Endpoint
from skippipe.runtime.events import ComputeMeasured, LinkMeasured, MeasurementDone, SyncMeasured
from skippipe.runtime.gradients import largest_message
from skippipe.runtime.share import own_device, take_device, take_threads
from skippipe.runtime.task_profiler import REST_SECONDS, measure_tasks
from skippipe.schedule.costs import (
    activation_bytes,
    bytes_per_parameter,
    fixed_seconds,
    gib_per_second,
    hop_bandwidth,
    layer_parameters,
)
from skippipe.transport.all_reduce import AllReduce, Exact, expected_parts
from skippipe.transport.collective import Expected, Identity
from skippipe.transport.inbox import Inbox, Key
from skippipe.transport.message import HEADER, Header, MessageKind
from skippipe.transport.sharing import Sharing, Tree

PINGS = 20
SMALL_BYTES, LARGE_BYTES = 1 << 18, 1 << 23
BULKS = 3
"""Transfers of each size; the fastest counts."""
BULK_SECONDS = 0.5
"""A large transfer is shortened to this on a slow link."""
HOPS = 5
"""Messages of an activation's size; their median counts."""
MESSAGES = PINGS + 2 * BULKS + HOPS
SYNCS = 3
"""All-reduces of each group; their median counts."""
TASK_FIGURES, SYNC_FIGURES, LINK_FIGURES = 4, 1, 3
ROUND, RESULTS, GROUPS = 0, 1, 2
"""Sequences of what nodes do together; from GROUPS on come, of each group, its SYNCS pairs of a start and a sync."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""The same in all network namespaces and containers of a machine (man 5 proc)."""

Pair = tuple[int, int]


@dataclass(frozen=True)
class ProfileConfig:
    """What is to be profiled."""

    model: ModelConfig
    vocabulary: int
    samples: int
    """Sequences in a microbatch."""
    replicas: int
    """Nodes of an all-reduce."""
    device: str
    precision: Precision = "fp32"
    recompute: bool = False
    compiled: bool = False
    threads: int | None = None

    def stage(self, number: int) -> Stage:
        """A stage of the model."""
        return Stage(self.model, number, self.vocabulary, 0, self.precision, self.recompute, self.compiled)

    @property
    def hop_bytes(self) -> int:
        """Bytes of a message that stands for an activation: as many, but not more than LARGE_BYTES."""
        return min(activation_bytes(self.model.d_model, self.model.context, self.samples), LARGE_BYTES)

    @property
    def sync_parameters(self) -> int:
        """Parameters of an all-reduce: those of a stage's layers, but not more than LARGE_BYTES hold."""
        layer = layer_parameters(self.model.d_model, self.model.feed_forward)
        return min(self.model.layers_per_stage * layer, LARGE_BYTES // 4)


def machine_number() -> int:
    """What tells this machine from others, whatever addresses it has; small enough to be a float."""
    return uuid.UUID(BOOT_ID.read_text().strip()).int % 2**53


def take_turns(hosts: list[int]) -> list[list[Pair]]:
    """All pairs (i, j), i <= j, in turns that use each host once; (i, i) is node i's compute."""
    turns: list[tuple[set[int], list[Pair]]] = []
    for pair in itertools.combinations_with_replacement(range(len(hosts)), 2):
        used = {hosts[node] for node in pair}
        for busy, pairs in turns:
            if not busy & used:
                busy |= used
                pairs.append(pair)
                break
        else:
            turns.append((used, [pair]))
    return [pairs for _, pairs in turns]


def sync_groups(nodes: int, replicas: int) -> list[list[int]]:
    """Nodes that all-reduce together, a group for each node: it and those that follow, round and round."""
    return [sorted({(first + i) % nodes for i in range(replicas)}) for first in range(nodes)]


class Rounds:
    """A node's part in what all nodes do together; each sharing of figures ends a round, an iteration of the inbox."""

    def __init__(self, endpoint: Endpoint, config: ProfileConfig) -> None:
        """Connect to all other nodes; PeerLostError if one does not come."""
        self.node = endpoint.node
        nodes = range(endpoint.nodes)
        self.groups = sync_groups(endpoint.nodes, config.replicas)
        self.tree = Tree(nodes, self.node)
        self.number = 0
        senders = {
            (MessageKind.ACTIVATION, other * MESSAGES + number): other for other in nodes for number in range(MESSAGES)
        }
        expected = self.expected(config)
        self.inbox = Inbox(senders, lambda sender: 0.0, collectives=expected)
        self.links = endpoint.open_links(self.inbox, max(HEADER.size + LARGE_BYTES, largest_message(expected)))
        self.links.connect(other for other in nodes if other != self.node)

    def expected(self, config: ProfileConfig) -> dict[int, Expected]:
        """What must come, by sequence."""
        figures = TASK_FIGURES + SYNC_FIGURES + LINK_FIGURES * len(self.tree.members)
        found = {ROUND: self.tree.expected(1), RESULTS: self.tree.expected(figures)}
        for number, group in enumerate(self.groups):
            if self.node in group:
                for turn in range(SYNCS):
                    start, sync = self.sequences(number, turn)
                    found[start] = Tree(group, self.node).expected(1)
                    found[sync] = expected_parts(group, self.node, config.sync_parameters, Exact())
        return found

    def sequences(self, group: int, turn: int) -> tuple[int, int]:
        """Sequences of the start and of the sync of a group's turn."""
        first = GROUPS + 2 * (group * SYNCS + turn)
        return first, first + 1

    def share(self, figures: list[float], sequence: int = ROUND) -> list[list[float]]:
        """Every node's figures, node by node, when all nodes are here."""
        sharing = Sharing(self.tree, figures)
        self.links.run(sharing, Identity(self.number, sequence))
        self.number += 1
        self.inbox.next_iteration(self.number)
        rows: list[list[float]] = sharing.table.tolist()
        return rows

    def measure_syncs(self, config: ProfileConfig) -> float:
        """Median seconds of the all-reduce of the group that bears this node's number; takes part in all of its own."""
        measured = 0.0
        for number, group in enumerate(self.groups):
            if self.node in group:
                times = [self.measure_sync(group, *self.sequences(number, turn), config) for turn in range(SYNCS)]
                if number == self.node:
                    measured = statistics.median(times)
            self.share([0.0])
        return measured

    def measure_sync(self, group: list[int], start: int, sync: int, config: ProfileConfig) -> float:
        """Seconds of an all-reduce of a group, whose members wait for each other before."""
        gradient = torch.zeros(config.sync_parameters)
        self.links.run(Sharing(Tree(group, self.node), [0.0]), Identity(self.number, start))
        began = time.perf_counter()
        self.links.run(AllReduce(group, self.node, gradient, 1, Exact()), Identity(self.number, sync))
        return time.perf_counter() - began


def run_profile(endpoint: Endpoint, config: ProfileConfig) -> None:
    """Take part in all turns and report this node's figures (in a process of its own)."""
    # As in a run whose times are real, which is what a profile is for.
    take_threads(config.threads, endpoint, emulated=False)
    device = own_device(config.device, endpoint)
    take_device(device, endpoint.node)
    rounds = Rounds(endpoint, config)
    hosts = [int(row[0]) for row in rounds.share([float(machine_number())])]
    tasks, link_figures = [0.0] * TASK_FIGURES, [0.0] * (LINK_FIGURES * endpoint.nodes)
    for pairs in take_turns(hosts):
        for pair in pairs:
            if pair == (endpoint.node, endpoint.node):
                rounds.links.work.begin("the profile of its tasks")
                tasks = list(measure_tasks(lambda number: config.stage(number).to(device), config.samples))
                rounds.links.work.wait("the other nodes")
            elif endpoint.node in pair:
                link_figures[LINK_FIGURES * pair[1] : LINK_FIGURES * (pair[1] + 1)] = measure_link(pair, rounds, config)
            else:
                continue
            endpoint.report(MeasurementDone())
        rounds.share([0.0])
    sync_s = rounds.measure_syncs(config)
    rows = rounds.share([*tasks, sync_s, *link_figures], RESULTS)
    if endpoint.first_here:
        report_all(endpoint, rows, config)
    rounds.links.drain(10.0)
    rounds.links.close()


def report_all(endpoint: Endpoint, rows: list[list[float]], config: ProfileConfig) -> None:
    """Report what all nodes measured, as rates of the cost model."""
    layers = config.samples * config.model.layers_per_stage
    links = {
        (node, other): rows[node][first : first + LINK_FIGURES]
        for node, other in itertools.combinations(range(endpoint.nodes), 2)
        for first in [TASK_FIGURES + SYNC_FIGURES + LINK_FIGURES * other]
    }
    rests = [fixed_seconds(hop_s, latency_ms, bulk, config.hop_bytes) for latency_ms, bulk, hop_s in links.values()]
    fixed_s = statistics.median(rests)
    bandwidth: dict[Pair, float] = {}
    for pair, (latency_ms, _, hop_s) in links.items():
        # What this hop has of its own beside fixed_s, such as the burst that a shaped link lets through, goes here.
        bandwidth[pair] = hop_bandwidth(hop_s, latency_ms, fixed_s, config.hop_bytes)
        endpoint.report(LinkMeasured(*pair, latency_ms, bandwidth[pair], fixed_s))
    for node, row in enumerate(rows):
        forward_s, backward_s, loss_s, gap_s = row[:TASK_FIGURES]
        endpoint.report(ComputeMeasured(node, forward_s / layers, backward_s / layers, loss_s / config.samples, gap_s))
    for node, group in enumerate(sync_groups(endpoint.nodes, config.replicas)):
        slowest = min(bandwidth[pair] for pair in itertools.combinations(group, 2))
        moved = bytes_per_parameter(rows[node][TASK_FIGURES], slowest, config.sync_parameters)
        endpoint.report(SyncMeasured(node, moved))


def measure_link(pair: Pair, rounds: Rounds, config: ProfileConfig) -> tuple[float, float, float]:
    """Latency in ms, bandwidth in GiB/s, a hop's seconds; the first of the pair measures, the second answers."""
    node, links, inbox, iteration = rounds.node, rounds.links, rounds.inbox, rounds.number
    other = pair[1] if node == pair[0] else pair[0]
    numbers = iter(range(MESSAGES))

    def headers() -> tuple[Header, Key]:
        number = next(numbers)
        mine = Header(MessageKind.ACTIVATION, iteration, node * MESSAGES + number, node, 0.0)
        return mine, (MessageKind.ACTIVATION, iteration, other * MESSAGES + number)

    def round_trips(count: int, size: int, rest_s: float = 0.0) -> list[float]:
        times = []
        message = torch.zeros(size // 4, device=config.device)
        for _ in range(count):
            time.sleep(rest_s)
            mine, theirs = headers()
            began = time.perf_counter()
            links.send(other, mine, message)
            inbox.take(theirs)
            times.append(time.perf_counter() - began)
        return times

    if node != pair[0]:
        for _ in range(MESSAGES):
            mine, theirs = headers()
            inbox.take(theirs)[1].to(config.device)
            links.send(other, mine, torch.zeros(1))
        return 0.0, 0.0, 0.0
    latency_s = statistics.median(round_trips(PINGS, 4)) / 2
    small_s = min(round_trips(BULKS, SMALL_BYTES))
    large_bytes = min(max(int(SMALL_BYTES * BULK_SECONDS / small_s) // 4 * 4, 2 * SMALL_BYTES), LARGE_BYTES)
    # The difference of two sizes leaves out what a transfer costs whatever its size.
    seconds = max(min(round_trips(BULKS, large_bytes)) - small_s, 1e-6)
    # Of the round trip of an activation and its answer, the way back is a latency.
    hop_s = statistics.median(round_trips(HOPS, config.hop_bytes, REST_SECONDS)) - latency_s
    return 1000 * latency_s, gib_per_second(large_bytes - SMALL_BYTES, seconds), hop_s
