"""Each fault and attack that is listed is let happen by one test, of the module that its layer names."""

from __future__ import annotations

import importlib

import pytest

from tests.attacks import Attack
from tests.cases import DRIVEN, Case, Layer
from tests.faults import Fault

CASES: tuple[Case, ...] = (*Fault, *Attack)


@pytest.fixture(scope="module", autouse=True)
def _all_tests_are_known() -> None:
    for layer in Layer:
        importlib.import_module(layer.module)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_test_lets_it_happen(case: Case) -> None:
    assert len(DRIVEN[case]) == 1, DRIVEN[case]
    assert DRIVEN[case][0].startswith(f"{case.layer.module}.test_")


def test_every_layer_has_something_that_goes_wrong() -> None:
    assert {case.layer for case in CASES} == set(Layer)


def test_who_can_not_go_on_is_told_why() -> None:
    silent = [fault for fault in Fault if not (fault.goes_on or fault.line)]
    # Nobody is left to read it.
    assert silent == [Fault.DATA_ORPHANED]
