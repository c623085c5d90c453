"""Replayed comparisons: recorded rounds drawn anew, disturbances shared by all benchmarks as they
were."""

from __future__ import annotations

from pathlib import Path

import pytest
from gate_replay import measured, recorded, replayed
from toy_samples import environment, gate_samples, noisy

from equivbench.errors import FailedError, IncomparableError
from equivbench.gate.compare import compare
from equivbench.gate.samples import GateSamples, Side
from equivbench.records.files import write_lines


def record(folder: Path, baseline: list[GateSamples], candidate: list[GateSamples]) -> Path:
    write_lines(baseline, folder / "baseline.jsonl")
    write_lines(candidate, folder / "candidate.jsonl")
    return folder


def session(folder: Path, seed: int, **changes: object) -> Path:
    """Eight rounds of a control and a benchmark, of identical code."""
    sides = [
        [
            gate_samples(
                noisy(1.0, 0.01, 8, 10 * seed + 2 * side + place),
                benchmark=name,
                control=name == "control",
                **changes,
            )
            for place, name in enumerate(("control", "work"))
        ]
        for side in (0, 1)
    ]
    return record(folder, *sides)


def verdicts(sides: tuple[Side, Side]) -> dict[str, str]:
    return {each.benchmark: each.verdict for each in compare(*sides, thresholds={})}


def test_what_is_drawn_was_recorded_and_stays_together(tmp_path: Path) -> None:
    rounds = recorded([session(tmp_path / str(seed), seed) for seed in range(3)])
    assert rounds.count == 24
    first, second = replayed(rounds, 10, seed=7)
    for control, work in zip(
        *([each.values for each in side.measurements] for side in (first, second)), strict=True
    ):
        assert len(control) == len(work) == 10
    (one, other), (partner, _) = first.measurements, second.measurements
    place = [pair for pair in rounds.pairs["control"] if one.blocks[0] in pair]
    assert len(place) == 1
    assert set(place[0]) == {one.blocks[0], partner.blocks[0]}
    index = list(rounds.pairs["control"]).index(place[0])
    assert other.blocks[0] in rounds.pairs["work"][index]


def test_replays_differ_by_seed_and_only_by_seed(tmp_path: Path) -> None:
    rounds = recorded([session(tmp_path, 1)])
    assert replayed(rounds, 8, seed=1) == replayed(rounds, 8, seed=1)
    assert replayed(rounds, 8, seed=1) != replayed(rounds, 8, seed=2)


def test_a_planted_slow_down_is_found_and_identical_code_is_not(tmp_path: Path) -> None:
    rounds = recorded([session(tmp_path / str(seed), seed) for seed in range(3)])
    for seed in range(20):
        assert verdicts(replayed(rounds, 8, seed))["work"] in ("unchanged", "inconclusive")
        assert verdicts(replayed(rounds, 8, seed, {"work": 1.1}))["work"] == "regression"


def test_what_is_too_noisy_is_replayed_with_more_rounds(tmp_path: Path) -> None:
    noise = [
        [
            gate_samples(
                noisy(1.0, spread, 12, 10 * side + place), benchmark=name, control=not place
            )
            for place, (name, spread) in enumerate(
                (("control", 0.01), ("work", 0.1), ("calm", 0.01))
            )
        ]
        for side in (0, 1)
    ]
    rounds = recorded([record(tmp_path, *noise)])
    counts = {each.name: len(each.values) for each in measured(rounds, 10, 1)[0].measurements}
    assert counts == {"control": 40, "work": 40, "calm": 10}


def test_rounds_of_two_machines_are_not_mixed(tmp_path: Path) -> None:
    folders = [
        session(tmp_path / "a", 1),
        session(tmp_path / "b", 2, environment=environment("other-1t")),
    ]
    with pytest.raises(IncomparableError):
        recorded(folders)


def test_a_folder_without_both_sides_has_failed(tmp_path: Path) -> None:
    with pytest.raises(FailedError):
        recorded([tmp_path])
    with pytest.raises(FailedError):
        recorded([])
    with pytest.raises(FailedError, match="work"):
        recorded(
            [
                record(
                    tmp_path / "one",
                    [gate_samples([1.0] * 8)],
                    [gate_samples([1.0] * 8, benchmark="other")],
                )
            ]
        )
