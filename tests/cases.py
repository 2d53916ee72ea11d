"""What the lists of faults and attacks have in common: where each happens, and which test drives it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest


class Layer(Enum):
    """Where something goes wrong, and the module of the tests that let it."""

    LINK = "a link between two nodes", "tests.transport.test_link_faults"
    PEER = "the process at the other end of a link", "tests.transport.test_links"
    NETWORK = "a node's own network thread", "tests.transport.test_network"
    RUN = "nodes, machines and cables of a whole run", "tests.end_to_end.test_faults"
    LAUNCH = "what a launcher does before and beside training", "tests.end_to_end.test_launch"
    HANG = "a node's torch thread, or its process", "tests.end_to_end.test_hangs"
    DISK = "a disk that is full", "tests.end_to_end.test_full_disk"
    MACHINES = "what several machines must have in common", "tests.end_to_end.test_machines"
    NO_SHARED_DISK = "checkpoints on the disks of several machines", "tests.end_to_end.test_no_shared_disk"
    CHECKPOINT = "files of a checkpoint's stages", "tests.model.test_checkpoint"
    NUMBERS = "numbers in a checkpoint's stages", "tests.model.test_checkpoint"
    FEEDBACK = "files of what compressed syncs left out", "tests.model.test_feedback"
    STRANGER = "whoever reaches the ports of a node", "tests.transport.test_link_attacks"
    HANDSHAKE = "the first three messages of a connection", "tests.transport.test_handshake"
    INVITATION = "the conversation with a machine that was invited", "tests.transport.test_invitation"
    DATAGRAM = "datagrams of discovery", "tests.transport.test_greeting"
    RECORD = "sealed records of a connection", "tests.transport.test_framing"
    FRAME = "frames of a peer that holds the secret", "tests.transport.test_framing"
    MESSAGE = "messages of a peer that holds the secret", "tests.transport.test_inbox"
    COLLECTIVE = "messages of a collective", "tests.transport.test_collectives"

    @property
    def module(self) -> str:
        """Of the tests."""
        return self.value[1]


class Case(Enum):
    """One of a list's members; its value is a tuple that begins with the layer."""

    @property
    def layer(self) -> Layer:
        """Where it happens."""
        layer: Layer = self.value[0]
        return layer


DRIVEN: defaultdict[Case, list[str]] = defaultdict(list)
"""By member: the tests that let it happen, of the modules that are imported."""


def drives(*cases: Case) -> Callable[[Any], Any]:
    """Mark a test that lets each of these members happen; its argument is called `fault` or `attack`."""

    def mark(test: Any) -> Any:
        for case in cases:
            DRIVEN[case].append(f"{test.__module__}.{test.__name__}")
        return pytest.mark.parametrize(type(cases[0]).__name__.lower(), cases, ids=lambda case: case.name)(test)

    return mark
