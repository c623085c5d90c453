"""What a page about results shows: curves that end where their rows do, gaps and kernels with where
they come from."""

import math
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from factories import make_record, make_run
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_roofline import toy_roofline

from equivbench.errors import FailedError
from equivbench.gap.efficiency import efficiency_gap
from equivbench.gap.intervals import over_seeds
from equivbench.records.line_files import KERNEL_FILE, KernelSamples
from equivbench.records.schema import Environment, Git, RunRecord
from equivbench.records.store import InvalidRecordWarning, write_record
from equivbench.report.board import DIGITS, build_boards
from equivbench.report.provenance import provenance
from equivbench.report.publication import (
    Publication,
    load_kernels,
    make_publication,
    publish,
)

KERNELS = KERNEL_FILE.name
STEPS = [10, 30, 100, 300, 1000]


def law(steps: float, exponent: float = 0.5) -> float:
    return 5.0 * steps**-exponent


def runs(arm: str = "equivariant", seeds: int = 3, **overrides: Any) -> list[RunRecord]:
    """Seeds that differ in their loss and in their speed."""
    found = [
        make_run(
            arm,
            lambda step, seed=seed: law(step) * (1 + 0.1 * seed),  # type: ignore[misc]
            [step + seed for step in STEPS],
            tau=0.1 * (1 + 0.2 * seed),
            share=0.1 * (seed + 1),
            seed=seed,
            **overrides,
        )
        for seed in range(seeds)
    ]
    for record in found:
        for step, rung in zip(STEPS, record.rungs, strict=True):
            rung.budget = 0.1 * step
    return found


def sample(backend: str = "fused", **overrides: Any) -> KernelSamples:
    settings: dict[str, Any] = {
        "created": "2026-01-02T03:04:05+00:00",
        "command": "equivbench kernels",
        "case": "case",
        "mode": "forward",
        "backend": backend,
        "method": "matmul",
        "dtype": "float32",
        "rounds": [0.02, 0.01],
        "compile_seconds": 0.0,
        "errors": {"output": 1e-7},
        "bytes_fused": 1e6,
        "bytes_unfused": 2e6,
        "operations": 1e7,
        "bandwidth": 1e10,
        "allocator": {},
        "environment": Environment(
            machine_key="toy-cpu-2t",
            device="cpu",
            driver=None,
            cpu="Toy CPU",
            threads=2,
            python="3.11.0",
            packages={},
        ),
        "git": Git(commit="0" * 40, dirty=False),
        **overrides,
    }
    return KernelSamples(**{"roofline": toy_roofline(settings), **settings})


def keep(samples: list[KernelSamples], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in samples))


@given(
    steps=st.lists(
        st.lists(st.integers(1, 10**6), min_size=4, max_size=4, unique=True).map(sorted),
        min_size=1,
        max_size=4,
    )
)
def test_seeds_on_one_power_law_average_to_points_of_it(steps: list[list[int]]) -> None:
    records = [
        make_run("equivariant", law, each, tau=0.1, seed=seed) for seed, each in enumerate(steps)
    ]
    for record in records:  # seeds of unequal speed make other numbers of steps within a budget
        for budget, rung in enumerate(record.rungs):
            rung.budget = budget
    (curve,) = make_publication(records).curves
    for point in curve.points:
        assert point.total.value == pytest.approx(
            law(point.steps), rel=1e-12
        )  # a few roundings of logarithms of order 10
        assert point.samples == pytest.approx(32 * point.steps, rel=1e-12)
        assert point.seconds == pytest.approx(0.1 * point.steps, rel=1e-12)


@given(count=st.integers(1, 5), kept=st.integers(1, 5))
def test_curve_ends_at_the_total_of_its_row_however_many_evaluations_a_seed_missed(
    count: int, kept: int
) -> None:
    records = runs(seeds=count)
    records[0].rungs = records[0].rungs[-kept:]  # a slow first step is past the first budgets
    (curve,) = make_publication(records).curves
    assert len(curve.points) == kept
    last = curve.points[-1]
    # The row is rounded to DIGITS significant digits.
    close = {"rel": 10.0 ** (1 - DIGITS)}
    assert last.total.value == pytest.approx(curve.row.total, **close)
    assert last.share.value == pytest.approx(curve.row.share, **close)
    if count > 1:
        assert (last.total.low, last.total.high) == (
            pytest.approx(curve.row.total_low, **close),
            pytest.approx(curve.row.total_high, **close),
        )
    else:
        assert (last.total.low, last.total.high) == (None, None)


def test_every_point_is_the_mean_over_seeds_with_its_student_interval() -> None:
    records = runs()
    (curve,) = make_publication(records).curves
    for k, point in enumerate(curve.points):
        tests = [record.rungs[k].test for record in records]
        loss = over_seeds([test.total for test in tests if test.total is not None], geometric=True)
        shares = [test.share for test in tests if test.share is not None]
        share = over_seeds(shares, least=0, most=1)
        for found, expected in ((point.total, loss), (point.share, share)):
            values = (found.value, found.low, found.high)
            assert values == pytest.approx(
                (expected.value, expected.low, expected.high), rel=1e-12
            )  # rounding of a few sums


def test_share_that_one_seed_did_not_measure_is_unknown() -> None:
    records = runs()
    records[1].rungs[2].test.share = None
    (curve,) = make_publication(records).curves
    assert [point.share.value is None for point in curve.points] == [
        False,
        False,
        True,
        False,
        False,
    ]
    assert all(point.total.value is not None for point in curve.points)


def test_only_finished_seeds_are_in_a_curve() -> None:
    lost = make_record(seed=3, status="diverged", reason="loss is nan", final=None)
    publication = make_publication(
        [*runs(), lost, make_record(arm="other", status="failed", reason="no memory", final=None)]
    )
    by_arm = {curve.row.arm: curve for curve in publication.curves}
    assert by_arm["equivariant"].points == make_publication(runs()).curves[0].points
    assert by_arm["other"].points == ()
    assert by_arm["equivariant"].row.status == "partial"
    assert by_arm["equivariant"].row.unfinished == ("seed 3 diverged: loss is nan",)
    assert (by_arm["other"].row.status, by_arm["other"].row.unfinished) == (
        "no result",
        ("seed 0 failed: no memory",),
    )


def test_a_curve_for_every_row_in_the_order_of_the_boards() -> None:
    records = [*runs(), *runs("augmented"), *runs(preset="paper"), *runs(pair="another")]
    publication = make_publication(records, units={"toy": "eV"})
    assert list(publication.boards) == build_boards(records, {"toy": "eV"})
    assert [(curve.setting, curve.row) for curve in publication.curves] == [
        (board.setting, row) for board in publication.boards for row in board.rows
    ]


def test_gaps_carry_the_runs_of_both_arms_and_their_unit() -> None:
    records = [*runs(), *runs("augmented", seeds=2), *runs(pair="alone")]
    publication = make_publication(records, units={"toy": "eV"})
    assert [each.gap for each in publication.gaps] == efficiency_gap(records)
    (gap,) = publication.gaps
    assert set(gap.provenance.run_ids) == {
        f"small-seed{seed}-{arm}" for seed in range(2) for arm in ("equivariant", "augmented")
    }
    assert gap.unit == "eV"
    (why,) = publication.left_out
    assert "toy/alone" in why


@settings(max_examples=15)  # each takes some ten milliseconds
@given(order=st.permutations(range(6)))
def test_order_of_records_and_samples_does_not_matter(
    published: Publication, order: list[int]
) -> None:
    assert make_publication([RECORDS[k] for k in order], [SAMPLES[k] for k in order]) == published


RECORDS = [*runs(), *runs("augmented")]
SAMPLES = [sample(name) for name in "abcdef"]


@pytest.fixture(scope="module")
def published() -> Publication:
    return make_publication(RECORDS, SAMPLES)


@pytest.mark.parametrize("worst", [1e300, 1e-300])
def test_a_seed_beyond_all_measure_stops_nobody(worst: float) -> None:
    """Its interval is open where no float can hold it, in curves and gaps alike."""
    losses = [worst, 1 / worst, 1.0]
    records = [
        make_run(arm, lambda step, loss=loss: loss, [10, 100], tau=0.1, seed=seed)  # type: ignore[misc]
        for arm in ("equivariant", "augmented")
        for seed, loss in enumerate(losses if arm == "equivariant" else [1.0, 2.0, 3.0])
    ]
    publication = make_publication(
        [*records, *runs(pair="other"), *runs("augmented", pair="other")]
    )
    wild, tame = sorted(publication.gaps, key=lambda each: each.gap.pair == "other")
    assert wild.gap.loss_ratio.value == pytest.approx(
        6 ** (-1 / 3), rel=1e-9
    )  # the extremes cancel in the geometric mean
    assert (wild.gap.loss_ratio.low, wild.gap.loss_ratio.high) == (None, None)
    assert tame.gap.loss_ratio.low is not None


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for record in runs():
        write_record(record, tmp_path / "results")
    return tmp_path / "results"


def test_kernels_of_every_machine_are_found_and_hidden_files_are_not(results: Path) -> None:
    other = msgspec.structs.replace(sample().environment, machine_key="a-cpu-1t")
    keep([sample("z"), sample("a")], results / "toy-cpu-2t" / KERNELS)
    keep([sample("m", environment=other)], results / "a-cpu-1t" / KERNELS)
    keep([sample("hidden")], results / ".trash" / KERNELS)
    keep([sample("other")], results / "toy-cpu-2t" / "other.jsonl")
    publication = publish(results)
    assert [(each.environment.machine_key, each.backend) for each in publication.kernels] == [
        ("a-cpu-1t", "m"),
        ("toy-cpu-2t", "a"),
        ("toy-cpu-2t", "z"),
    ]
    assert publish(next(results.rglob("*.json"))).kernels == ()


BROKEN: dict[str, dict[str, Any]] = {
    "no rounds": {"rounds": []},
    "no time": {"rounds": [0.0]},
    "time backwards": {"rounds": [-1.0]},
    "no bandwidth": {"bandwidth": 0.0},
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_samples_that_cannot_be_are_refused_by_name_or_left_out(
    results: Path, change: dict[str, Any]
) -> None:
    file = results / "toy-cpu-2t" / KERNELS
    keep([sample("good"), sample("bad", **change)], file)
    with pytest.raises(FailedError, match=KERNELS):
        publish(results)
    with pytest.warns(InvalidRecordWarning, match=KERNELS):
        assert publish(results, invalid="warn").kernels == ()


def test_link_out_of_the_folder_is_not_followed(results: Path, tmp_path: Path) -> None:
    keep([sample()], tmp_path / "elsewhere" / "toy-cpu-2t" / KERNELS)
    (results / "toy-cpu-2t" / KERNELS).symlink_to(tmp_path / "elsewhere" / "toy-cpu-2t" / KERNELS)
    with pytest.raises(FailedError, match="link"):
        load_kernels(results)
    shutil.rmtree(tmp_path / "elsewhere")


def test_provenance_names_what_differs_once() -> None:
    clean = {"commit": "a" * 40, "dirty": False}
    records = [
        make_record(seed=0, git=clean, created="2026-01-03T00:00:00Z"),
        make_record(
            seed=1, git={"commit": "a" * 40, "dirty": True}, created="2026-01-01T00:00:00Z"
        ),
        make_record(
            seed=2, git=clean, environment={"packages": {"torch": "9"}}, command="again\x1b[2J"
        ),
    ]
    source = provenance(records)
    assert source.run_ids == tuple(record.run_id for record in records)
    assert source.commits == ("a" * 40, "a" * 40 + "-dirty")
    assert source.commands == ("equivbench run toy/pair", "again\N{REPLACEMENT CHARACTER}[2J")
    assert (source.first, source.last) == ("2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z")
    assert source.packages == ("python 3.11.0", "torch 2.11.0", "torch 9")
    assert source.device == "2 threads of Toy CPU"
    gpu = provenance([make_record(environment={"device": "Toy GPU", "driver": "580.1"})])
    assert gpu.device == "Toy GPU, driver 580.1, with 2 threads of Toy CPU"


def test_points_are_where_a_logarithmic_axis_can_show_them() -> None:
    records = runs()
    records[0].rungs[0].train_seconds = 0.0
    (curve,) = make_publication(records).curves
    assert len(curve.points) == len(STEPS) - 1
    assert all(math.isfinite(np.log(point.seconds)) for point in curve.points)
