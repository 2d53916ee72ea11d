"""Import of the original code's schedule.json: four settings, their paths written out for every microbatch.

The file holds paths for one round only. The original sends along the path of a finished microbatch again until an
origin has sent all of its microbatches; its coarsened ca-paths serve a whole round with one path. Its baseline has no
paths in the file: pipeline i joins the i-th node of stages 1, 2, .. (with the first three origins and 27 microbatches
that gives the file's expected time to 0.2 s), and the stage-0 nodes that send are matched to pipelines by the
bottleneck of the hops in and out, as DT-FM matches neighbouring stages.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from skippipe.errors import UserError
from skippipe.schedule.content import Content
from skippipe.schedule.costs import Costs, activation_bytes, layer_parameters, sync_bytes
from skippipe.schedule.costs import sync_seconds as stage_sync_seconds
from skippipe.schedule.network import find_network, load_network
from skippipe.schedule.plan import Pipeline, Plan, make_plan

NETWORK = "gcp-12-as-published"
FORWARD_S, D_MODEL, HEADS, CONTEXT, SAMPLES, LAYERS = 0.44, 1024, 16, 1024, 8, 1
"""What the shipped schedule was made for (paper.md: forward 0.44 s is 0.055 s x 8 samples x 1 layer)."""
PATHS = {"random": "random-paths", "non-ca-partial": "non-ca-paths", "ca-partial": "ca-paths"}
MOST_SENDS = 1000
"""Most microbatches that a node holds or sends."""
MOST_MATCHED = 8
"""Largest stage 0 for which every choice of senders is tried."""


def is_original(document: Any) -> bool:
    """Whether parsed JSON looks like the original's schedule file."""
    return isinstance(document, dict) and "format" not in document and "ca-paths" in document and "delays" in document


def import_original(document: dict[str, Any]) -> Content:
    """Build a schedule of all four settings; UserError names the key that is missing or wrong."""
    try:
        stages = [[int(node) for node in stage] for stage in document["partitions"]]
        locations = tuple(str(name) for name in document["locations"])
        memory, sends = int(document["memory"]), int(document["ours-sends"])
        baseline_sends = int(document["baseline-sends"])
        hop_s = np.array(document["delays"], dtype=np.float64)
        rounds = {name: [read_path(entry) for entry in document[key].values()] for name, key in PATHS.items()}
    except KeyError as error:
        raise UserError(f"the original's schedule has no key {error}") from None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"the original's schedule has a value of the wrong type ({str(error)[:80]})") from None
    nodes = len(locations)
    if hop_s.shape != (nodes, nodes) or not np.isfinite(hop_s).all() or hop_s.min() < 0:
        raise UserError(f"delays must be {nodes} rows of {nodes} numbers that are not negative")
    if sorted(node for stage in stages for node in stage) != list(range(nodes)):
        raise UserError(f"partitions must name each of the {nodes} nodes once")
    for key, value in (("memory", memory), ("ours-sends", sends), ("baseline-sends", baseline_sends)):
        if not 1 <= value <= MOST_SENDS:
            raise UserError(f"{key} must lie between 1 and {MOST_SENDS}, not {str(value)[:40]}")
    for name, paths_of_round in rounds.items():
        if not paths_of_round or any(not 0 <= node < nodes for path in paths_of_round for node in path):
            raise UserError(f"{PATHS[name]} must hold paths of nodes from 0 to {nodes - 1}")
        if len({len(path) for path in paths_of_round}) > 1:
            raise UserError(f"{PATHS[name]} must hold paths of one length")
    network = load_network(find_network(NETWORK))
    latency_ms, bandwidth = network.between(locations)
    pipeline = Pipeline(
        stages=len(stages),
        path_length=len(rounds["ca-partial"][0]),
        memory=memory,
        layers_per_stage=LAYERS,
        d_model=D_MODEL,
        heads=HEADS,
        context=CONTEXT,
        samples_per_microbatch=SAMPLES,
        microbatches_per_node=sends,
        activation_bytes=activation_bytes(D_MODEL, CONTEXT, SAMPLES),
        stage_bytes=sync_bytes(LAYERS * layer_parameters(D_MODEL), network.rates.sync_bytes_per_parameter),
    )
    costs = Costs.of_rates(np.full(nodes, FORWARD_S), network.rates, hop_s)
    sync_s = [stage_sync_seconds(stage, bandwidth, pipeline.stage_bytes) for stage in stages]
    paths = {"baseline": baseline_paths(stages, costs, baseline_sends)}
    paths |= {name: repeat_rounds(entries, stages[0], memory, sends, name) for name, entries in rounds.items()}

    def plan(setting: str) -> Plan:
        array = np.array(paths[setting], dtype=np.int64)
        search = {"solver": f"imported: the original's {setting}", "seed": None, "seconds": None}
        return make_plan(stages, array, costs, memory, sync_s, search)

    return Content(
        NETWORK, locations, latency_ms, bandwidth, pipeline, costs, {setting: plan(setting) for setting in paths}
    )


def read_path(links: dict[str, int]) -> list[int]:
    """The nodes of a path from the original's {node: next node}."""
    following = {int(node): int(target) for node, target in links.items()}
    starts = following.keys() - set(following.values())
    if len(starts) != 1:
        raise UserError(f"the original's path {str(links)[:80]} has no single first node")
    path = [starts.pop()]
    while path[-1] in following and len(path) <= len(following):
        path.append(following[path[-1]])
    return path


def repeat_rounds(entries: list[list[int]], origins: list[int], memory: int, sends: int, name: str) -> list[list[int]]:
    """Paths of all microbatches, origin by origin; the i-th of an origin takes the path of place i mod memory."""
    paths = []
    for origin in origins:
        own = [path for path in entries if path[0] == origin]
        if len(own) not in (1, memory):
            raise UserError(f"{PATHS[name]} has {len(own)} paths from node {origin}, expected 1 or memory {memory}")
        paths += [own[i % memory % len(own)] for i in range(sends)]
    return paths


def baseline_paths(stages: list[list[int]], costs: Costs, sends: int) -> list[list[int]]:
    """Full pipelines: as many as the smallest stage has nodes, each with one sending origin."""
    tails = [list(tail) for tail in zip(*stages[1:], strict=False)]
    if len(stages[0]) > MOST_MATCHED or len(tails) > len(stages[0]):
        raise UserError(f"partitions: stage 0 has {len(stages[0])} nodes for {len(tails)} pipelines")
    hop_s = costs.hop_s

    def bottleneck(senders: tuple[int, ...]) -> tuple[float, float]:
        around = [hop_s[node, tail[0]] + hop_s[tail[-1], node] for node, tail in zip(senders, tails, strict=True)]
        return max(around), math.fsum(around)

    senders = min(itertools.permutations(stages[0], len(tails)), key=bottleneck)
    return [[node, *tail] for node, tail in zip(senders, tails, strict=True) for _ in range(sends)]
