"""Measures links and compute over the real stack: what `python -m skippipe profile` lets each node's process do.

Pairs of nodes take turns so that no host is in two measurements at once. For each pair a few small messages give the
latency and two sizes of large ones the bandwidth; each node times forward and backward of a stage's layers.
"""

from __future__ import annotations

import ipaddress
import itertools
import statistics
import time

import torch
import torch.distributed as distributed

from skippipe.config import ModelConfig
from skippipe.model.stage import Stage
from skippipe.runtime.endpoint import Endpoint
from skippipe.runtime.events import ComputeMeasured, LinkMeasured, MeasurementDone
from skippipe.runtime.gradients import meet, share
from skippipe.schedule.costs import gib_per_second
from skippipe.transport.inbox import Inbox
from skippipe.transport.links import Links
from skippipe.transport.message import HEADER, Header, MessageKind

PINGS = 20
SMALL_BYTES, LARGE_BYTES = 1 << 18, 1 << 23
BULKS = 3
"""Transfers of each size; the fastest counts."""
MESSAGES = PINGS + 2 * BULKS
COMPUTE_REPEATS = 5
TIMEOUT_SECONDS = 600.0

Pair = tuple[int, int]


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


def run_profile(endpoint: Endpoint, model: ModelConfig, samples: int, device: str) -> None:
    """Take part in all turns and report this node's figures (in a process of its own)."""
    torch.set_num_threads(1)
    nodes = range(endpoint.nodes)
    senders = {
        (MessageKind.ACTIVATION, other * MESSAGES + number): other for other in nodes for number in range(MESSAGES)
    }
    inbox = Inbox(senders, lambda sender: 0.0)
    links = endpoint.open_links(inbox, HEADER.size + LARGE_BYTES)
    meet(endpoint, endpoint.peers.connect_seconds + TIMEOUT_SECONDS)
    links.connect(other for other in nodes if other != endpoint.node)
    host = int(ipaddress.IPv4Address(endpoint.peers.host))
    hosts = [int(row[0]) for row in share([float(host)], endpoint.nodes)]
    # This node's forward and backward seconds, then latency and bandwidth to each node that it took the time with.
    row = [0.0] * (2 + 2 * endpoint.nodes)
    for pairs in take_turns(hosts):
        for pair in pairs:
            if pair == (endpoint.node, endpoint.node):
                row[:2] = measure_compute(model, samples, device)
            elif endpoint.node in pair:
                row[2 + 2 * pair[1] : 4 + 2 * pair[1]] = measure_link(pair, endpoint.node, links, inbox)
            else:
                continue
            endpoint.report(MeasurementDone())
        distributed.barrier()
    rows = share(row, endpoint.nodes)
    if endpoint.first_here:
        report_all(endpoint, rows)
    links.drain(10.0)
    distributed.destroy_process_group()
    links.close()


def report_all(endpoint: Endpoint, rows: list[list[float]]) -> None:
    """Report what all nodes measured."""
    for node, (forward_s, backward_s, *figures) in enumerate(rows):
        endpoint.report(ComputeMeasured(node, forward_s, backward_s))
        for other in range(node + 1, endpoint.nodes):
            latency_ms, bandwidth_gib_s = figures[2 * other : 2 * other + 2]
            endpoint.report(LinkMeasured(node, other, latency_ms, bandwidth_gib_s))


def measure_link(pair: Pair, node: int, links: Links, inbox: Inbox) -> tuple[float, float]:
    """Latency in ms and bandwidth in GiB/s; the first node of the pair takes the time, the second only answers."""
    other = pair[1] if node == pair[0] else pair[0]
    answer = torch.zeros(1)
    sizes = [4] * PINGS + [SMALL_BYTES] * BULKS + [LARGE_BYTES] * BULKS
    times = []
    for number, size in enumerate(sizes):
        mine = Header(MessageKind.ACTIVATION, 0, node * MESSAGES + number, node, time.time())
        theirs = (MessageKind.ACTIVATION, 0, other * MESSAGES + number)
        if node == pair[0]:
            began = time.perf_counter()
            links.send(other, mine, torch.zeros(size // 4))
            inbox.take(theirs)
            times.append(time.perf_counter() - began)
        else:
            inbox.take(theirs)
            links.send(other, mine, answer)
    if not times:
        return 0.0, 0.0
    round_trip = statistics.median(times[:PINGS])
    small, large = min(times[PINGS : PINGS + BULKS]), min(times[PINGS + BULKS :])
    # The difference of two sizes leaves out what a transfer costs whatever its size.
    seconds = max(large - small, 1e-6)
    return 1000 * round_trip / 2, gib_per_second(LARGE_BYTES - SMALL_BYTES, seconds)


def measure_compute(model: ModelConfig, samples: int, device: str) -> tuple[float, float]:
    """Seconds of forward and backward per sample and layer, on a stage that has layers only."""
    stage = Stage(model, 1, 2, 0).to(device)
    times: list[tuple[float, float]] = []
    for _ in range(COMPUTE_REPEATS):
        hidden_BTD = torch.randn(samples, model.context, model.d_model, device=device, requires_grad=True)
        marks = [now(device)]
        left = stage(hidden_BTD)
        marks.append(now(device))
        left.backward(torch.ones_like(left))
        marks.append(now(device))
        times.append((marks[1] - marks[0], marks[2] - marks[1]))
    units = samples * model.layers_per_stage
    return statistics.median(row[0] for row in times) / units, statistics.median(row[1] for row in times) / units


def now(device: str) -> float:
    """Time when everything asked of the device is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()
