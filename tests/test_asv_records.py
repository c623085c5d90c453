"""What records say of commits: values that may be compared, under names that no benchmark of asv's
own suite has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asv_records
import pytest
from asv_records import Measured, measured, of_kernels, of_ladder, of_pairs
from factories import make_run
from ladder_lines import FIRST, SECOND, THIRD, ladder_entry
from toy_samples import kernel_samples

from equivbench.gap.efficiency import measure_gaps
from equivbench.records.line_files import KernelSamples
from equivbench.records.schema import Git, RunRecord

ROOT = Path(__file__).parent.parent
STEPS = [10, 30, 100, 300, 1000]


def values(found: list[Measured]) -> dict[tuple[str, str], float]:
    """By what stands before the first comma of the parameter, and commit."""
    return {(each.parameter.partition(",")[0], each.commit): each.value for each in found}


# --- the ladder


def test_a_rung_is_the_time_to_the_target_of_one_backend() -> None:
    plain, _ = ladder_entry(FIRST, 0.1)
    fused, _ = ladder_entry(FIRST, 0.05, kernels="fused", day=2)
    found = list(of_ladder([plain, fused]))
    assert {each.benchmark for each in found} == {asv_records.LADDER}
    assert {each.parameter: each.value for each in found} == {
        "toy/pair/equivariant, small, to 0.25, torch": plain.seconds,
        "toy/pair/equivariant, small, to 0.25, fused": fused.seconds,
    }
    # 400 steps of 0.1 and of 0.05 s.
    assert [each.value for each in found] == pytest.approx([40.0, 20.0], rel=1e-2)


def test_a_rung_that_does_not_count_alone_is_no_value() -> None:
    few, _ = ladder_entry(FIRST, 0.1, seeds=5)
    # 80 s are no more than 400 steps of 0.2 s, less than slow seeds need.
    high, _ = ladder_entry(SECOND, 0.1, target=0.17)
    low, _ = ladder_entry(THIRD, 0.1, target=2.0)
    assert high.censored == "above"
    assert low.censored == "below"
    assert list(of_ladder([few, high, low])) == []


# --- kernels


def kernel(day: int, commit: str, seconds: list[float], **changes: Any) -> KernelSamples:
    git = Git(commit=commit, dirty=changes.pop("dirty", False), tree=commit[::-1])
    return kernel_samples(seconds, created=f"2026-01-{day:02}T00:00:00Z", git=git, **changes)


def test_of_a_kernel_the_sample_of_a_commit_counts_that_counts_on_the_board() -> None:
    first = kernel(1, FIRST, [3.0, 2.0])
    again, quick = kernel(2, FIRST, [1.5, 1.6]), kernel(3, FIRST, [1.0])
    later = kernel(4, SECOND, [0.5])
    found = list(of_kernels([later, quick, again, first]))
    name = f"{first.case}/{first.mode}/{first.backend}"
    assert [(each.parameter, each.commit, each.value) for each in found] == [
        (name, FIRST, 2.0),
        (name, SECOND, 0.5),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"dirty": True},
        {"dirty": None},
        {"operations": 7.0},
        {"bytes_fused": 7.0},
        {"allocator": None},
        {"device_state": {"throttled_rounds": 1.0, "throttled_by": "heat"}},
    ],
    ids=str,
)
def test_a_kernel_that_was_timed_otherwise_is_no_value(changes: dict[str, Any]) -> None:
    other, own = kernel(1, FIRST, [2.0], **changes), kernel(2, SECOND, [1.0])
    assert [each.commit for each in of_kernels([other, own])] == [SECOND]


# --- pairs


def runs(
    commit: str = FIRST, seeds: int = 3, level: float = 1.0, seconds: float = 100.0, **more: Any
) -> list[RunRecord]:
    """Both arms, with losses of 8 and 16 n^-1/2 after n steps, the first times ``level``; the
    equivariant arm comes to 500 and the other to 1000 of them within ``seconds``."""
    changes = {
        "git": {"commit": commit, "dirty": False, "tree": commit[::-1]},
        "preset": "small",
        **more,
    }
    return [
        make_run(
            arm,
            lambda step, scale=scale * (1 + 1e-3 * seed): scale * step**-0.5,
            [step // pace for step in STEPS],
            tau=pace * seconds / STEPS[-1],
            seed=seed,
            limit=seconds,
            run_id=f"{changes['preset']}-seed{seed}-{arm}-{level:g}",
            **changes,
        )
        for seed in range(seeds)
        for arm, scale, pace in (("equivariant", 8.0 * level, 2), ("augmented", 16.0, 1))
    ]


def of_records(*records: RunRecord) -> list[Measured]:
    return list(of_pairs((each.gap, each.runs) for each in measure_gaps(records)))


def test_a_pair_is_its_losses_its_seconds_and_where_its_arms_tie() -> None:
    found = of_records(*runs())
    assert {each.commit for each in found} == {FIRST}
    by_name = {each.benchmark: each.value for each in found}
    assert by_name[asv_records.LOSS_RATIO] == pytest.approx(0.5**0.5)
    assert by_name[asv_records.TIME_RATIO] == pytest.approx(2.0)
    assert by_name[asv_records.STEPS_AT_TIE] == pytest.approx(0.25)
    assert by_name[asv_records.TIME_AT_TIE] == pytest.approx(0.5)
    seconds = [each for each in found if each.benchmark == asv_records.SECONDS]
    assert values(seconds) == pytest.approx(
        {
            ("toy/pair/equivariant", FIRST): 0.2 / 32,
            ("toy/pair/augmented", FIRST): 0.1 / 32,
        }
    )


def test_of_several_campaigns_of_a_commit_that_of_most_seeds_counts() -> None:
    most = runs(seeds=4, level=1.1, contest="one")
    newer = runs(level=1.2, contest="two", created="2026-03-01T00:00:00Z")
    for records in ([*most, *newer], [*newer, *most]):
        ratios = [each for each in of_records(*records) if each.benchmark == asv_records.LOSS_RATIO]
        assert len({each.parameter for each in ratios}) == 1
        assert [each.value for each in ratios][-1] == pytest.approx(1.1 * 0.5**0.5)


def bad(**changes: Any) -> list[RunRecord]:
    return runs(THIRD, level=1.1, **changes)


@pytest.mark.parametrize(
    "records",
    [
        bad(git={"commit": THIRD, "dirty": True}),
        bad(git={"commit": None, "dirty": None}),
        bad(machine_share={"steal": 0.5}),
        bad(seeds=2),
        bad(variant={"sweep": "width", "value": "2"}),
        [*bad()[:-1], *bad(status="diverged", final=None)[-1:]],
    ],
    ids=["dirty", "no commit", "disturbed", "two seeds", "a sweep", "diverged"],
)
def test_runs_that_may_not_be_compared_are_no_values(records: list[RunRecord]) -> None:
    found = of_records(*runs(), *records)
    assert {each.commit for each in found} == {FIRST}
    assert len(found) == 6


def test_what_is_not_to_be_compared_is_never_one_series() -> None:
    data = {"name": "toy-set", "version": "1", "sizes": {"train": 1000, "validation": 1, "test": 9}}
    others = [
        runs(SECOND),
        runs(SECOND, level=1.1, seconds=200.0),
        runs(SECOND, level=1.2, preset="dev"),
        runs(SECOND, level=1.3, dataset={**data, "sha256": "2" * 64}),
        runs(SECOND, level=1.4, model={"kernels": "fused"}),
        runs(SECOND, level=1.5, pair="other"),
    ]
    found = of_records(*(record for own in others for record in own))
    ratios = [each.parameter for each in found if each.benchmark == asv_records.LOSS_RATIO]
    assert len(ratios) == len(set(ratios)) == len(others)


# --- names


def live() -> Iterator[str]:
    """The modules of asv's own suite."""
    return (file.stem for file in (ROOT / "benchmarks").glob("*.py"))


def test_names_are_their_own_and_no_alarm_is_raised_below_the_noise_of_runs() -> None:
    settings = json.loads((ROOT / "asv.conf.json").read_text(encoding="utf-8"))
    assert "records" not in live()
    for name in asv_records.BENCHMARKS:
        assert name.startswith("records.")
        thresholds = settings["regressions_thresholds"].items()
        # asv takes the largest of all that fit.
        assert max(value for pattern, value in thresholds if re.match(pattern, name)) == 0.15


def test_the_shipped_records_have_values_of_every_kind() -> None:
    found = measured(ROOT / "results")
    assert {each.benchmark for each in found} == set(asv_records.BENCHMARKS)
    assert min(each.value for each in found) > 0
