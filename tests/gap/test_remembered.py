"""Gaps of a folder of records: those of the records themselves, each worked out once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from factories import make_run

from equivbench.gap import remembered
from equivbench.gap.efficiency import MeasuredGap, efficiency_gap, measure
from equivbench.gap.pairing import MatchedRuns, pair_up
from equivbench.gap.remembered import gaps_of
from equivbench.records.schema import RunRecord
from equivbench.records.store import load_results, write_record
from equivbench.records.submission import admit

STEPS = [10, 30, 100, 300, 1000]


def runs(pair: str, level: float = 1.0, seeds: int = 3, **more: Any) -> Iterator[RunRecord]:
    for arm, factor in (("equivariant", 2.0), ("augmented", 3.0)):
        for seed in range(seeds):
            luck = level * factor * (1 + 0.05 * seed * (-1) ** seed)
            yield make_run(
                arm,
                lambda step, k=luck: k * step**-0.5,
                STEPS,
                tau=0.1,
                seed=seed,
                pair=pair,
                run_id=f"small-seed{seed}-{arm}-{pair}",
                contest=f"contest of {pair} {seed}",
                **more,
            )


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remembered, "LEAST_KEPT", 1)
    out = tmp_path / "results"
    for pair in ("one", "two"):
        for record in runs(pair, 1.0 if pair == "one" else 1.17):
            write_record(record, out)
    return out


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pairs that were worked out since this was last cleared."""
    found: list[str] = []

    def noted(matched: MatchedRuns) -> MeasuredGap:
        found.append(matched.setting.pair)
        return measure(matched)

    monkeypatch.setattr(remembered, "measure", noted)
    return found


def gaps(results: Path) -> list[dict[str, Any]]:
    admitted = admit(results)
    found = gaps_of(admitted, pair_up(admitted.outlines))
    return [each.to_json() for each in found]


def expected(results: Path) -> list[dict[str, Any]]:
    return [each.to_json() for each in efficiency_gap(load_results(results))]


def test_they_are_those_of_the_records(results: Path, measured: list[str]) -> None:
    first = gaps(results)
    assert first == expected(results)
    assert sorted(measured) == ["one", "two"]
    assert {gap["decided"] for gap in first} == {True}
    assert gaps(results) == first
    assert len(measured) == 2, "nothing is worked out twice"


def test_they_are_the_same_where_nothing_is_kept(
    results: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "LEAST_KEPT", 1000)
    assert gaps(results) == gaps(results) == expected(results)
    assert len(measured) == 4


def test_a_new_seed_changes_its_own_pair_and_the_correction_of_the_others(
    results: Path, measured: list[str]
) -> None:
    before = gaps(results)
    measured.clear()
    for record in runs("two", 1.17, seeds=4):
        if record.seed == 3:
            write_record(record, results)
    assert gaps(results) == expected(results) != before
    assert measured == ["two"]
    for record in runs("three", 1.29):
        write_record(record, results)
    assert gaps(results) == expected(results)
    assert measured == ["two", "three"]


def test_a_changed_record_is_read_again(results: Path, measured: list[str]) -> None:
    gaps(results)
    measured.clear()
    file = next(file for file in results.rglob("*.json") if "one" in file.parts)
    record = load_results(file)[0]
    for number, factor in enumerate((1.01, 0.99)):
        record.throughput.blocks[number] *= factor
    file.write_bytes(msgspec.json.encode(record))
    assert gaps(results) == expected(results)
    assert measured == ["one"]


def test_a_diverged_seed_is_kept_too(results: Path, measured: list[str]) -> None:
    """Its loss is infinite, for which JSON has no number."""
    for record in runs("lost", 1.41):
        if record.arm == "augmented":
            for name in ("final", "final_on_part", "final_raw", "final_ema"):
                setattr(record, name, None)
                record.reasons[name] = "diverged"
            record.rungs, record.status, record.reason = [], "diverged", "loss is nan"
        write_record(record, results)
    assert gaps(results) == gaps(results) == expected(results)
    assert sorted(measured) == ["lost", "one", "two"]
