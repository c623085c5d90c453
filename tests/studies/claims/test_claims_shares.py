"""C1, C2 and C4: what is a fall, what is too little learned to tell, what sizes do, what the
penalty is."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import msgspec
import pytest
from claim_evidence import FALLS, PAIRS, Shares, all_tasks, make_shared
from factories import PART, make_test

from equivbench.records.curves import ResultWeights
from equivbench.records.evaluations import evaluations
from equivbench.records.schema import RunRecord
from equivbench.studies.claims.evidence import gather_evidence
from equivbench.studies.claims.findings import ClaimFinding
from equivbench.studies.claims.statements import CLAIMS, SMALL_PENALTY, claim
from equivbench.studies.claims.verdicts import judge


def found(
    identity: str, records: Sequence[RunRecord], weights: ResultWeights = "annealed"
) -> ClaimFinding:
    findings = judge(gather_evidence(records), [claim(identity)])
    assert [each.weights for each in findings] == ["annealed", "raw", "ema"]
    return next(each for each in findings if each.weights == weights)


UP_AGAIN: Shares = ((100, 0.5), (500, 0.3), (1000, 0.01), (5000, 0.07))
NEVER: Shares = ((100, 0.5), (1000, 0.3), (10_000, 0.1), (20_000, 0.001))
TOO_SHORT: Shares = ((100, 0.5), (9999, 0.021))


@pytest.mark.parametrize(
    ("shares", "verdict", "said"),
    [
        (FALLS, "held", "at the end too"),
        (((100, 0.01), (500, 0.015)), "held", "at the end too"),
        (UP_AGAIN, "held", "as a first crossing, not as an end state"),
        (NEVER, "did not hold", "no fall to 2% within 10,000 steps"),
        (TOO_SHORT, "not measured", "before 10,000 steps"),
    ],
)
def test_a_fall_is_a_crossing_within_the_horizon_and_its_end_is_said(
    shares: Shares, verdict: str, said: str
) -> None:
    finding = found("C1", all_tasks(shares))
    assert (finding.verdict, len(finding.parts)) == (verdict, len(PAIRS))
    assert said in finding.reason


def test_an_interval_that_holds_the_bound_decides_nothing() -> None:
    """A seed alone has the interval of its test groups."""
    high: Shares = ((100, 0.5), (1000, 0.3), (10_000, 0.0217))

    def ends_with(spread: float) -> RunRecord:
        record = make_shared(high)
        assert record.final is not None
        for test in (record.final, record.rungs[-1].test):
            assert test.groups is not None
            _, mean, _ = test.groups.equivariance
            test.groups.equivariance = [mean * (1 - spread), mean, mean * (1 + spread)]
        return record

    assert found("C1", [ends_with(0.1)]).verdict == "undecided"
    assert found("C1", [ends_with(0.01)]).verdict == "did not hold"
    assert found("C1", [ends_with(0.1)]).as_published == "did not hold"


def test_each_kind_of_weights_has_a_verdict_of_its_own() -> None:
    records = all_tasks(((100, 0.5), (1000, 0.05), (20_000, 0.001)))
    assert found("C1", records).verdict == "did not hold"
    for record in records:
        for point in record.trace:
            low = make_test(
                1.0, 0.01, {"weights": [1.0] * 2, "total": [1.0] * 2, "equivariance": [0.01] * 2}
            )
            point.ema = msgspec.convert({**low, **PART}, type(point.ema))
    assert found("C1", records, "ema").verdict == "held"
    assert found("C1", records, "raw").verdict == "did not hold"


def test_runs_of_another_version_of_the_code_are_not_left_out_in_silence() -> None:
    records = [make_shared(seed=seed, git={"tree": str(seed) * 40}) for seed in range(2)]
    (part,) = found("C1", records).parts
    assert part.subject.endswith("left out 1 record of the augmented arm, of another code or day")


def test_a_share_that_is_small_because_nothing_is_learned_is_no_fall() -> None:
    unlearned: Callable[[float], float] = lambda place: 9.0  # noqa: E731
    finding = found("C1", all_tasks(FALLS, loss=unlearned))
    assert finding.verdict == "not measured"
    assert "not surely 25% is learned" in finding.reason.lower()
    # It starts below the bound with nothing learned, and is above it ever after: open, not crossed.
    late: Callable[[float], float] = lambda place: 9.9 if place == 0 else 2.0  # noqa: E731
    rises = found("C1", all_tasks(((10, 0.001), (100, 0.03), (1000, 0.05)), loss=late))
    assert (rises.verdict, "ends above 2%" in rises.reason.lower()) == ("not measured", True)
    # Nor does a fall count that is over before anything is learned: what is left to read begins
    # below and rises.
    odd: Callable[[float], float] = lambda place: 9.9 if place == 0 else 2.0  # noqa: E731
    assert (
        found("C1", all_tasks(((10, 0.5), (100, 0.01), (1000, 0.05)), loss=odd)).verdict
        == "not measured"
    )


def test_learned_is_beyond_the_best_predictor_that_sees_no_shape() -> None:
    # 1 is 90% below zero's 10, but only 9% below the isotropic one's 1.1; the linear one sees the
    # shape and does not count.
    blind = all_tasks(FALLS, baselines={"zero": 10.0, "isotropic": 1.1, "linear": 0.5})
    assert found("C1", blind).verdict == "not measured"
    assert found("C1", all_tasks(FALLS, baselines={"zero": 10.0, "linear": 0.5})).verdict == "held"


def test_one_seed_that_ends_early_leaves_its_pair_open_and_one_pair_that_fails_is_enough() -> None:
    records = all_tasks(FALLS)
    assert (
        found("C1", [*records[:-1], make_shared(TOO_SHORT, task="voxel", seed=2)]).verdict
        == "not measured"
    )
    refuted = found("C1", [*records, make_shared(NEVER, task="voxel", pair="octahedral")])
    assert refuted.verdict == "did not hold"
    assert refuted.reason.startswith(
        "Did not hold, no fall to 2% within 10,000 steps: voxel/octahedral"
    )


def test_a_claim_on_all_tasks_waits_for_all_of_them() -> None:
    finding = found("C1", [record for record in all_tasks(FALLS) if record.task != "flow"])
    assert finding.verdict == "not measured"
    assert "no evidence on flow" in finding.reason.lower()


def test_the_longest_budget_of_a_pair_counts() -> None:
    short, longer = all_tasks(TOO_SHORT), all_tasks(((100, 0.5), (9000, 0.01), (19_000, 0.01)))
    assert found("C1", short).verdict == "not measured"
    finding = found("C1", [*short, *longer])
    assert (finding.verdict, len(finding.parts)) == ("held", 3)


def test_the_order_of_the_records_does_not_matter() -> None:
    records = [
        *all_tasks(UP_AGAIN),
        *all_tasks(FALLS, variant={"forces": "conservative"}),
        *swept("data", "0.25", 0.01),
    ]
    shuffled = list(records)
    random.Random(0).shuffle(shuffled)
    assert judge(gather_evidence(shuffled)) == judge(gather_evidence(records))


def swept(
    axis: str, value: str, share: float, seeds: Sequence[int] = (0, 1, 2), **more: object
) -> list[RunRecord]:
    """Points of a sweep of the force field's pair that end at about ``share``."""
    variant = {"sweep": axis, "value": value}
    return [
        make_shared(
            ((100, 0.5), (1000, share * (1 + 0.01 * seed))), seed=seed, variant=variant, **more
        )
        for seed in seeds
    ]


BASE = [make_shared(((100, 0.5), (1000, 0.03 * (1 - 0.01 * seed))), seed=seed) for seed in range(3)]


def test_robust_is_within_twice_the_share_or_within_the_bound_on_both_axes() -> None:
    alike = found("C2", [*BASE, *swept("size", "0.5", 0.04), *swept("data", "0.25", 0.019)])
    assert (alike.verdict, len(alike.parts)) == ("held", 2)
    tiny = [
        make_shared(((100, 0.5), (1000, 1e-4 * (1 + 0.01 * seed))), seed=seed) for seed in range(3)
    ]
    # A hundred times as much, and still at most 2%.
    assert (
        found("C2", [*tiny, *swept("size", "0.5", 0.01), *swept("data", "0.25", 0.01)]).verdict
        == "held"
    )
    harmed = found(
        "C2",
        [
            *BASE,
            *swept("size", "0.5", 0.04),
            *swept("data", "0.25", 0.09),
            *swept("data", "0.5", 0.03),
        ],
    )
    assert harmed.verdict == "did not hold"
    assert "at data 0.25 the share is above 2%" in harmed.reason


def test_one_axis_one_seed_or_little_learned_decide_nothing_on_sizes() -> None:
    one_axis = found("C2", [*BASE, *swept("data", "0.25", 0.02)])
    assert one_axis.verdict == "not measured"
    assert one_axis.reason.startswith("Nothing decided on size")
    one_seed = found("C2", [*BASE, *swept("data", "0.25", 0.3, seeds=[0])])
    assert (one_seed.verdict, "do not decide at data 0.25" in one_seed.reason) == (
        "undecided",
        True,
    )
    unlearned = found("C2", [*BASE, *swept("data", "0.25", 0.3, loss=lambda place: 9.0)])
    assert (unlearned.verdict, "is learned at data 0.25" in unlearned.reason) == (
        "not measured",
        True,
    )
    assert found("C2", swept("data", "0.25", 0.3)).parts == ()  # beside nothing
    assert found("C2", [*BASE, *swept("data", "all of it", 0.3)]).parts == ()


def both_arms(share: float, spread: float = 0.01, ratio: float = 0.5) -> list[RunRecord]:
    """Both arms of a pair per task; the equivariant one ends at ``ratio`` times the other's
    loss."""
    records = []
    for task in PAIRS:
        for seed in range(3):
            shares = [(step, share * (1 + spread * (seed - 1))) for step in (10, 100, 1000)]
            records.append(make_shared(shares, task=task, seed=seed))
            even: Callable[[float], float] = lambda place: ratio * (8.0 - 7.0 * place)  # noqa: E731
            exact = [(step, 1e-10) for step, _ in shares]
            records.append(make_shared(exact, task=task, seed=seed, arm="equivariant", loss=even))
    return records


def test_the_penalty_is_judged_at_losses_that_all_seeds_reach() -> None:
    held = found("C4", both_arms(0.05))
    assert (held.verdict, len(held.parts)) == ("held", 3)
    assert found("C4", both_arms(0.15)).verdict == "did not hold"
    # Intervals that hold the bound: two seeds below it, one above.
    assert "do not decide" in found("C4", both_arms(SMALL_PENALTY, spread=0.3)).reason
    # The augmented arm alone has no common losses; it does not stand in the way of the pairs that
    # have.
    assert found("C4", [*both_arms(0.05), make_shared(pair="tied-head")]).verdict == "held"
    alone = make_shared([(step, 0.05) for step in (10, 100, 10_000)])
    alone.budget.limit *= 10
    assert len(found("C4", [*both_arms(0.05), alone]).parts) == 3, (
        "nor does a longer run of one arm, for its own pair"
    )
    nothing = found("C4", [record for record in both_arms(0.05) if record.arm == "equivariant"])
    assert (nothing.verdict, nothing.parts) == ("not measured", ())


def test_what_the_penalty_is_beyond_the_loss_that_both_arms_reach_is_said_and_not_judged() -> None:
    rises: Shares = ((10, 0.02), (100, 0.03), (1000, 0.04), (2000, 0.3))
    records = [
        *all_tasks(rises, loss=lambda place: 8.0 - 5.0 * place),
        *all_tasks(
            [(step, 1e-10) for step, _ in rises],
            arm="equivariant",
            loss=lambda place: 8.0 - 3.4 * place,
        ),
    ]
    ahead = found("C4", records)
    assert ahead.verdict == "held"
    assert "at the loss that both arms reach: flow/vector-head at most 4" in ahead.reason
    assert ahead.reason.count("30.3% at its own end") == 3
    (end,) = (each for each in ahead.parts[0].measurements if "end of the augmented" in each.what)
    assert end.value == pytest.approx(30.3)
    assert end.note == "not judged: the other arm does not come down to this loss"
    # The worse arm's end is a level that is judged.
    behind = found("C4", both_arms(0.05))
    assert "at its own end" not in behind.reason
    (end,) = (each for each in behind.parts[0].measurements if "end of the augmented" in each.what)
    assert (end.value, end.note) == (pytest.approx(5.0), "")


def test_all_claims_go_by_the_campaign_whose_contests_had_their_machine() -> None:
    waited, quiet = both_arms(0.15), both_arms(0.05)
    for record in waited:
        # The newer one; the augmented arm's own runs had their machine.
        record.created, record.contest = "2026-02-02T03:04:05Z", "waited"
        if record.arm == "equivariant":
            record.machine_share.stalled_seconds = 50.0
    assert found("C4", waited).verdict == "did not hold"
    for records in ([*waited, *quiet], [*quiet, *waited]):
        penalty, early = found("C4", records), found("C1", records)
        assert penalty.verdict == "held"
        assert [part.detail[:4] for part in early.parts] == ["5.0%"] * len(PAIRS)
        for part in (*penalty.parts, *early.parts):
            assert "left out 3 records of the augmented arm, of another code or day" in part.subject


def test_the_symmetry_error_is_set_beside_the_whole_difference_between_the_arms() -> None:
    (part, *_) = found("C4", both_arms(0.05, spread=0.0)).parts
    figures = {each.what: each for each in part.measurements}
    # log(1 - .05) / log(.5) = 7.4%.
    assert figures[
        "part of that difference that the symmetry error accounts for"
    ].value == pytest.approx(7.4, abs=0.01)
    (behind, *_) = found("C4", both_arms(0.05, ratio=2.0)).parts
    figures = {each.what: each for each in behind.measurements}
    assert figures["part of that difference that the symmetry error accounts for"].value is None


def test_a_share_read_before_anything_is_learned_is_shown_as_one_that_does_not_count() -> None:
    records = both_arms(0.05)
    for record in records:
        # 25% below this are the losses from 3 down; 75% explained is one of 2.5.
        record.baselines = {"zero": 10.0, "isotropic": 4.0}
    (part, *_) = found("C4", records).parts
    notes = {each.what: each.note for each in part.measurements if each.what.startswith("share")}
    unread = {what for what, note in notes.items() if "does not count" in note}
    assert len(unread) == 2
    assert all("explained 25%" in what or "explained 50%" in what for what in unread)
    assert len(notes) > 2


def test_records_without_a_share_are_no_evidence_and_no_crash() -> None:
    records = both_arms(0.05)
    for record in records:
        for _, test in evaluations(record):
            test.share = None
    findings = judge(gather_evidence(records))
    assert {finding.verdict for finding in findings} == {"not measured"}
    assert len(findings) == 3 * len(CLAIMS)
