"""The board: what is aggregated, what is ranked together, and what every row must say."""

import itertools
import math
from typing import Any

import pytest
from factories import BASELINE, make_record, make_rungs, make_test
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from equivbench.errors import FailedError
from equivbench.records.schema import RunRecord
from equivbench.report.arms import summary_tables
from equivbench.report.board import DIGITS, build_boards
from equivbench.report.records import record_table
from equivbench.report.words import SPEED


def run(total: float = 0.5, **overrides: Any) -> RunRecord:
    """A record whose final total is ``total``."""
    return make_record(
        **{"rungs": make_rungs(lambda step: total, [10, 1000], 0.1, 32), **overrides}
    )


def rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def unfinished(status: str, **overrides: Any) -> RunRecord:
    return run(status=status, reason="said why", **{"final": None, **overrides})


def test_lower_total_ranks_first() -> None:
    (board,) = build_boards(
        [run(0.5, arm="augmented"), run(0.25, arm="equivariant"), run(1.0, arm="third")]
    )
    assert [(row.rank, row.arm, row.total) for row in board.rows] == [
        (1, "equivariant", 0.25),
        (2, "augmented", 0.5),
        (3, "third", 1.0),
    ]


totals = st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=8)


@given(values=totals)
def test_total_is_the_geometric_mean_with_the_student_interval_of_its_logarithm(
    values: list[float],
) -> None:
    (board,) = build_boards([run(value, seed=seed) for seed, value in enumerate(values)])
    (row,) = board.rows
    logs = [math.log(value) for value in values]
    mean, error = sum(logs) / len(logs), stats.sem(logs)
    # Two roundings to DIGITS digits can differ by one unit in the last one.
    close = {"rel": 2 * 10.0 ** (1 - DIGITS)}
    assert row.total == pytest.approx(math.exp(mean), **close)
    half = stats.t.ppf(0.975, len(logs) - 1) * error
    if half < 300:
        assert row.total_low == pytest.approx(math.exp(mean - half), **close)
        assert row.total_high == pytest.approx(math.exp(mean + half), **close)
        assert row.total_low <= row.total <= row.total_high


@given(values=totals, order=st.randoms(use_true_random=False))
def test_order_of_records_does_not_matter(values: list[float], order: Any) -> None:
    records = [
        run(value, seed=seed, arm=arm)
        for seed, value in enumerate(values)
        for arm in ("augmented", "equivariant")
    ]
    shuffled = records[:]
    order.shuffle(shuffled)
    assert build_boards(records) == build_boards(shuffled)


def test_one_seed_has_no_interval() -> None:
    (board,) = build_boards([run(0.5)])
    assert (board.rows[0].total_low, board.rows[0].total_high) == (None, None)


def test_total_is_shown_relative_to_the_best_untrained_predictor() -> None:
    (board,) = build_boards([run(total, seed=seed) for seed, total in enumerate((0.4, 0.6))])
    assert board.rows[0].over_best_untrained == pytest.approx(0.5 / BASELINE, rel=1e-9)


def test_the_share_is_shown_for_all_three_kinds_of_weights() -> None:
    weights = {"final_raw": make_test(0.6, 0.3), "final_ema": make_test(0.55, 0.05)}
    (board,) = build_boards([run(**weights)])
    row = board.rows[0]
    assert (row.share, row.share_raw, row.share_ema) == (0.1, 0.3, 0.05)
    assert row.total == 0.5


def test_further_outputs_and_test_sets_stand_beside() -> None:
    further = {"larger": make_test(0.8, 0.2)}
    records = [run(0.5, seed=seed, out_of_distribution=further) for seed in range(2)]
    for record, error in zip(records, (2.0, 8.0), strict=True):
        assert record.final is not None
        record.final.errors = {"energy": error}
    (board,) = build_boards(records)
    assert board.rows[0].beside == {"energy error": 4.0, "larger": 0.8, "larger share": 0.2}


def test_equal_totals_share_a_rank() -> None:
    (board,) = build_boards(
        [run(total, arm=arm) for arm, total in (("a", 0.5), ("b", 0.5), ("c", 0.6))]
    )
    assert [row.rank for row in board.rows] == [1, 1, 3]


APART: dict[str, dict[str, Any]] = {
    "task": {"task": "other"},
    "data set": {"dataset": {"name": "other"}},
    "data version": {"dataset": {"version": "2"}},
    "data checksum": {"dataset": {"sha256": "1" * 64}},
    "preset": {"preset": "paper"},
    "budget limit": {"budget": {"limit": 200.0}},
    "budget kind": {"budget": {"kind": "steps"}},
    "hardware": {"environment": {"machine_key": "other-cpu-2t"}},
    "rules": {"rules_version": 1},
    "variant": {"variant": {"forces": "conservative"}},
    "test group": {"trace": [], "rungs": [], "final": make_test(0.5) | {"group": "octahedral"}},
}


@pytest.mark.parametrize("overrides", APART.values(), ids=APART)
def test_unlike_runs_are_never_ranked_together(overrides: dict[str, Any]) -> None:
    boards = build_boards([run(), run(arm="augmented", **overrides)])
    assert [len(board.rows) for board in boards] == [1, 1]
    assert all(row.rank == 1 for board in boards for row in board.rows)


SETUPS: dict[str, dict[str, Any]] = {
    "model": {"model": {"name": "other"}},
    "config": {"model": {"config": {"width": 64}}},
    "kernels": {"model": {"kernels": "fast"}},
    "wrapper": {"model": {"wrapper": "frames"}},
    "rate": {"recipe": {"learning_rate": 2e-3}},
    "compilation": {"recipe": {"compile": "default"}},
}


@pytest.mark.parametrize("overrides", SETUPS.values(), ids=SETUPS)
def test_seeds_of_unlike_setups_are_not_mixed(overrides: dict[str, Any]) -> None:
    (board,) = build_boards([run(seed=0), run(seed=1, **overrides)])
    assert [row.seeds for row in board.rows] == [1, 1]
    assert len({row.setup for row in board.rows}) == 2


def test_outcome_of_the_symmetry_check_is_not_a_setup() -> None:
    (board,) = build_boards([run(seed=0), run(seed=1, model={"symmetry_verified": False})])
    assert [row.seeds for row in board.rows] == [2]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_repetition_of_a_seed_is_shown_and_replaces_nothing(order: tuple[int, ...]) -> None:
    records = [
        run(
            0.1 * (hour + 1), created=f"2026-01-02T0{hour}:00:00Z", run_id=f"small-seed0-{9 - hour}"
        )
        for hour in range(3)
    ]
    (board,) = build_boards([records[index] for index in order])
    assert (board.rows[0].seeds, board.rows[0].total) == (1, rounded(0.1))
    assert board.rows[0].note == "seed 0 was run 3 times (0.1, 0.2, 0.3): the first counts"


def test_a_run_that_failed_is_made_again_and_the_one_that_ended_counts() -> None:
    failed = unfinished("failed", created="2026-01-02T01:00:00Z", run_id="small-seed0-1")
    again = run(0.2, created="2026-01-02T02:00:00Z", run_id="small-seed0-2")
    (board,) = build_boards([again, failed])
    (row,) = board.rows
    assert (row.seeds, row.total, row.note) == (1, 0.2, "")


@pytest.mark.parametrize(
    "other",
    [
        {"git": {"tree": "2" * 40, "commit": "2" * 40}},
        {"created": "2026-01-05T00:00:00Z", "contest": "f" * 12},
    ],
)
def test_runs_of_another_code_or_day_are_a_row_of_their_own(other: dict[str, Any]) -> None:
    (board,) = build_boards([run(0.1), run(0.2, seed=1, **other)])
    assert [(row.rank, row.seeds) for row in board.rows] == [(1, 1), (2, 1)]
    assert board.rows[0].day == "2026-01-02"
    assert board.rows[0].commit == "0" * 12
    assert (board.rows[1].day, board.rows[1].commit) != ("2026-01-02", "0" * 12)


def test_diverged_seed_ranks_below_every_row_without_one_and_is_printed() -> None:
    best = [run(0.1, seed=0), run(0.1, seed=1), unfinished("diverged", seed=2)]
    (board,) = build_boards([*best, run(9.0, arm="augmented"), unfinished("diverged", arm="lost")])
    assert [(row.arm, row.rank) for row in board.rows] == [
        ("augmented", 1),
        ("equivariant", 2),
        ("lost", None),
    ]
    assert board.rows[1].note == "2 of 3 finished (1 diverged)"
    assert board.rows[1].total == 0.1
    assert board.rows[2].total is None
    assert board.rows[2].note == "0 of 1 finished (1 diverged)"


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_unfinished_seed_counts_for_nothing_and_is_printed(status: str) -> None:
    (board,) = build_boards([run(0.1), unfinished(status, seed=1), run(0.2, arm="augmented")])
    assert [(row.arm, row.rank) for row in board.rows] == [("equivariant", 1), ("augmented", 2)]
    assert board.rows[0].note == f"1 of 2 finished (1 {status})"


def test_run_that_failed_before_its_first_evaluation_is_on_the_board_of_its_pair() -> None:
    nothing = dict.fromkeys(("final_on_part", "final_raw", "final_ema"))
    lost = unfinished("failed", seed=1, trace=[], rungs=[], **nothing)
    (board,) = build_boards([run(0.1), lost])
    assert board.rows[0].seeds == 2
    (board,) = build_boards([lost])
    assert board.setting.group == ""


def test_refuted_symmetry_is_flagged_even_if_one_seed_only() -> None:
    refuted = {"symmetry_verified": False, "symmetry_reason": "it\x1b wobbles"}
    (board,) = build_boards([run(seed=0), run(seed=1, model=refuted)])
    assert board.rows[0].note.startswith("declared so3 symmetry, which its measurement refutes: it")
    assert "\x1b" not in board.rows[0].note
    why = {"model.symmetry_verified": "it is noise"}
    (board,) = build_boards([run(model={"symmetry_verified": None}, reasons=why)])
    assert board.rows[0].note == "declared so3 symmetry, not confirmed: it is noise"
    (board,) = build_boards([run(model={"symmetry": "none", "symmetry_verified": None})])
    assert board.rows[0].note == ""


def test_all_in_throughput_carries_the_compile_seconds() -> None:
    (board,) = build_boards(
        [run(clock={"compile": 100.0}, throughput={"samples_per_second": 320.0})]
    )
    row = board.rows[0]
    assert row.samples_per_second == 320.0
    assert (
        row.samples_per_second_all_in == 160.0
    )  # 32000 samples in 100 s of steps and 100 s of compilation
    assert row.compile_seconds == 100.0


def test_no_speed_of_a_run_that_did_not_have_its_machine_is_shown() -> None:
    fast, busy = (
        run(
            0.5 + 0.1 * seed,
            seed=seed,
            throughput={"samples_per_second": rate},
            machine_share={"cpu_share": share},
        )
        for seed, (rate, share) in enumerate(((300.0, 0.98), (30.0, 0.05)))
    )
    (row,) = build_boards([fast, busy])[0].rows
    assert (row.finished, row.samples_per_second) == (2, 300.0)
    assert row.compile_seconds == fast.clock.compile
    assert "busy during seed 1: no speed of it counts" in row.note
    (alone,) = build_boards([busy])[0].rows
    assert alone.total == 0.6
    assert alone.samples_per_second is alone.samples_per_second_all_in is None
    assert alone.compile_seconds is None
    (table,) = summary_tables([busy])
    names = [column.name for column in table.columns]
    assert table.rows[0][names.index(SPEED.name)] is None


def test_throughput_is_that_of_all_devices_of_an_arm() -> None:
    timed = {"samples_per_second": 320.0}
    records = [run(devices_per_arm=4, clock={"compile": 100.0}, throughput=timed)]
    (board,) = build_boards(records)
    # 32000 samples in 25 s of steps and 25 s of compilation, each on four devices.
    assert board.rows[0].samples_per_second == 4 * 320.0
    assert board.rows[0].samples_per_second_all_in == 4 * 160.0
    for table in (*summary_tables(records), record_table(records)):
        (row,) = table.rows
        at = [column.name for column in table.columns].index(SPEED.name)
        assert row[at] == 4 * 320.0


def test_what_was_not_measured_is_null_never_zero() -> None:
    (board,) = build_boards([run(throughput={"samples_per_second": None, "step_seconds": None})])
    assert board.rows[0].samples_per_second is None
    assert board.rows[0].samples_per_second_all_in is None


def test_value_outside_its_range_is_a_failure_that_names_the_record() -> None:
    record = run()
    assert record.final is not None
    record.final.share = 7.0
    with pytest.raises(FailedError, match=r"small-seed0-equivariant.*share is 7"):
        build_boards([record])


def test_no_records_are_a_failure() -> None:
    with pytest.raises(FailedError, match="no records"):
        build_boards([])


def test_unit_is_that_of_the_task() -> None:
    assert build_boards([run()], {"toy": "(eV/A)^2"})[0].unit == "(eV/A)^2"
    assert build_boards([run()])[0].unit == ""
