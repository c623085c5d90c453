"""A run that did not have its machine is marked, wherever it is shown, and decides nothing."""

from __future__ import annotations

from typing import Any

import pytest
from factories import make_record

from equivbench.records.disturbed import disturbance
from equivbench.records.plausibility import remarks
from equivbench.records.schema import RunRecord

QUIET = {
    "cpu_share": 0.9,
    "switches": 3.0,
    "load": 1.1,
    "steal": 0.0,
    "throttled_seconds": 0.0,
    "p90_over_p10": 1.4,
    "stalled_seconds": 0.1,
}


def run(**change: Any) -> RunRecord:
    return make_record(machine_share={**QUIET, **change})


def test_a_quiet_machine_is_not_remarked() -> None:
    assert disturbance(run()) is None
    assert not [remark for remark in remarks(run()) if "busy" in remark]


def test_what_was_not_measured_is_not_remarked() -> None:
    assert disturbance(make_record()) is None
    assert disturbance(run(load=None, steal=None, p90_over_p10=None)) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stalled_seconds": 1e3}, "had to wait for 1000.0 of 103.0 s"),
        ({"steal": 0.2}, "gave 20% of the CPU time to others"),
        ({"throttled_seconds": 1e3}, "held it back"),
        ({"p90_over_p10": 28.0}, "28.0 times as long"),
        ({"cpu_share": 0.05}, "CPU seconds a second"),
    ],
)
def test_each_kind_of_disturbance_is_named(change: dict[str, float], words: str) -> None:
    found = disturbance(run(**change))
    assert found is not None
    assert words in found
    assert any(words in remark for remark in remarks(run(**change)))
