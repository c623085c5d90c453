"""C3 and C6: slices are compared only where they repeat, correlations only beyond the common
trend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from claim_evidence import curvature, gradients, landscape, make_shared

from equivbench.records.curves import ResultWeights
from equivbench.records.schema import RunRecord
from equivbench.studies.claims.evidence import gather_evidence
from equivbench.studies.claims.findings import ClaimFinding
from equivbench.studies.claims.statements import claim
from equivbench.studies.claims.verdicts import judge
from equivbench.studies.gradients.record import Gradients
from equivbench.studies.landscape.record import Curvature, Landscape
from equivbench.studies.record import Estimate

RUN = make_shared()


def easier(
    *slices: Landscape,
    records: Sequence[RunRecord] = (RUN,),
    weights: ResultWeights = "annealed",
) -> ClaimFinding:
    findings = judge(gather_evidence(records, landscapes=slices), [claim("C3")])
    return next(each for each in findings if each.weights == weights)


def one(equivariance: Curvature, twirled: Curvature, **more: Any) -> ClaimFinding:
    return easier(landscape(RUN, equivariance, twirled, **more))


def test_easier_is_better_conditioned_by_whole_intervals() -> None:
    assert one(curvature(5.0), curvature(50.0)).verdict == "held"
    assert one(curvature(50.0), curvature(5.0)).verdict == "did not hold"
    open_above = Estimate(value=5.0, low=4.0, high=None)
    for unsure in (
        one(curvature(5.0), curvature(5.5)),
        one(curvature(5.0, effective_condition=open_above), curvature(50.0)),
    ):
        assert (unsure.verdict, "intervals of the condition" in unsure.reason) == (
            "undecided",
            True,
        )


@pytest.mark.parametrize("worse", [{"in_plane_condition": 90.0}, {"roughness": 0.9}])
def test_what_has_no_interval_is_shown_and_not_judged(worse: dict[str, float]) -> None:
    finding = one(curvature(5.0, **worse), curvature(50.0))
    assert finding.verdict == "held"
    (value,) = worse.values()
    (shown,) = [each for each in finding.measurements if each.value == value]
    assert shown.note == "without an interval, not judged"


@pytest.mark.parametrize("part", ["equivariance", "twirled"])
@pytest.mark.parametrize("fresh", [None, -0.1, 1.0])
def test_grids_drawn_anew_are_shown_and_never_judged(fresh: float | None, part: str) -> None:
    parts = {"equivariance": curvature(5.0), "twirled": curvature(50.0)}
    usual = one(**parts)
    parts[part] = curvature(5.0 if part == "equivariance" else 50.0, fresh_r2=fresh)
    changed = one(**parts)
    assert (changed.verdict, changed.reason) == (usual.verdict, usual.reason)
    fits = {"equivariance": 0.04, "twirled": 0.04, part: fresh}
    better = "not measured"
    if fresh is not None:
        better = "held" if fits["equivariance"] > fits["twirled"] else "did not hold"
    assert changed.as_published == better
    assert fresh in [each.value for each in changed.measurements if "drawn anew" in each.what]


def test_a_slice_that_does_not_repeat_is_no_measurement() -> None:
    noise = one(curvature(5.0), curvature(50.0, repeated=0.3))
    assert (noise.verdict, "correlation 0.30" in noise.reason) == ("not measured", True)
    assert one(curvature(5.0, repeated=None), curvature(50.0)).verdict == "not measured"


def test_every_slice_counts_the_first_of_each_and_the_others_are_shown() -> None:
    good, bad = (curvature(5.0), curvature(50.0)), (curvature(50.0), curvature(5.0))
    assert (
        easier(landscape(RUN, *good), landscape(RUN, *bad, layers="head*")).verdict
        == "did not hold"
    )
    later = landscape(RUN, *good, created="2026-02-02T03:04:05Z")
    found = easier(later, landscape(RUN, *bad))
    assert found.verdict == "did not hold"
    assert len(found.parts) == 1
    repeated = [each.value for each in found.measurements if "not counted" in each.what]
    assert repeated == [5.0, 50.0]
    assert not [each for each in easier(later).measurements if "not counted" in each.what]


def of_seeds(*pairs: tuple[float, float], **more: Any) -> ClaimFinding:
    """Of seed i the condition numbers of both parts of the error are the i-th of ``pairs``."""
    records = [make_shared(seed=seed) for seed in range(len(pairs))]
    slices = [
        landscape(record, *map(curvature, pair), **more)
        for record, pair in zip(records, pairs, strict=True)
    ]
    return easier(*slices, records=records)


def test_several_seeds_are_judged_by_their_ratios_and_not_by_one_of_them() -> None:
    held = of_seeds((5.0, 50.0), (6.0, 50.0), (5.0, 60.0))
    assert (held.verdict, len(held.parts)) == ("held", 1)
    assert "better conditioned, over 3 seeds" in held.reason
    figures = {each.what: each for each in held.measurements}
    (ratio,) = [each for what, each in figures.items() if "over that of" in what]
    assert ratio.value == pytest.approx((0.1 * 0.12 * (5 / 60)) ** (1 / 3))
    assert ratio.low < ratio.value < ratio.high < 1
    assert figures["seeds"].value == 3
    assert held.parts[0].subject.count("seeds 0, 1, 2") == 1
    assert len(held.parts[0].runs) == 3
    assert of_seeds((50.0, 5.0), (60.0, 5.0), (50.0, 6.0)).verdict == "did not hold"
    # Each alone would have held but for the second.
    mixed = of_seeds((5.0, 50.0), (50.0, 5.0), (5.0, 50.0))
    assert (mixed.verdict, "holds 1, over 3 seeds" in mixed.reason) == ("undecided", True)


def test_of_one_seed_the_verdict_says_so() -> None:
    assert of_seeds((5.0, 50.0)).reason.startswith(
        "Held, the equivariance error is better conditioned, in one seed: forcefield/vector"
    )


def test_a_seed_whose_slice_is_noise_does_not_count_and_is_named() -> None:
    records = [make_shared(seed=seed) for seed in range(3)]
    slices = [
        landscape(record, curvature(5.0), curvature(50.0 + record.seed)) for record in records[:2]
    ]
    noise = landscape(records[2], curvature(50.0), curvature(5.0, repeated=0.1))
    found = easier(*slices, noise, records=records)
    assert found.verdict == "held"
    assert "over 2 seeds" in found.reason
    (seeds,) = [each for each in found.measurements if each.what == "seeds"]
    assert (seeds.value, seeds.note) == (2, "not counted, for their slices do not repeat: 2")
    unknown = curvature(5.0, effective_condition=Estimate(value=None))
    lacking = easier(*slices, landscape(records[2], unknown, curvature(50.0)), records=records)
    assert (lacking.verdict, "not every seed" in lacking.reason.lower()) == ("undecided", True)


def test_seeds_of_another_code_and_other_places_in_a_run_are_not_pooled() -> None:
    records = [make_shared(seed=seed) for seed in range(3)]
    changed = make_shared(seed=3, git={"tree": "2" * 40})
    pair = (curvature(5.0), curvature(50.0))
    found = easier(
        *(landscape(record, *pair) for record in records),
        landscape(changed, *pair[::-1]),
        records=[*records, changed],
    )
    assert found.verdict == "held"
    (part,) = found.parts
    assert part.subject.endswith("left out 1 landscape of another code or day")
    on_the_way = easier(
        *(landscape(record, *pair, step=10 * (1 + record.seed)) for record in records),
        records=records,
        weights="raw",
    )
    assert len(on_the_way.parts) == 3


def test_weights_are_judged_apart() -> None:
    slices = (
        landscape(RUN, curvature(5.0), curvature(50.0)),
        landscape(RUN, curvature(50.0), curvature(5.0), step=10),
        landscape(RUN, curvature(5.0), curvature(5.0), weights="ema"),
    )
    verdicts = {
        weights: easier(*slices, weights=weights).verdict for weights in get_args(ResultWeights)
    }
    assert verdicts == {"annealed": "held", "raw": "did not hold", "ema": "undecided"}


def test_an_analysis_counts_only_while_its_run_is_there() -> None:
    slice_ = landscape(RUN, curvature(5.0), curvature(50.0))
    assert easier(slice_).verdict == "held"
    others = [
        make_shared(seed=1),
        make_shared(dataset={"sha256": "1" * 64}),
        make_shared(status="failed", reason="killed"),
    ]
    for other in others:
        evidence = gather_evidence([other], landscapes=[slice_])
        for finding in judge(evidence, [claim("C3")]):
            assert (finding.verdict, finding.parts) == ("not measured", ())
        assert (
            "left out 1 analysis of runs whose finished records are not here" in evidence.warnings
        )


def test_the_equivariant_arm_says_nothing_about_what_is_learned() -> None:
    exact = make_shared(arm="equivariant")
    assert easier(landscape(exact, curvature(5.0), curvature(50.0)), records=[exact]).parts == ()


STEPS = np.unique(np.geomspace(10, 10_000, 24).round()).astype(int)


def along(seed: int, tied: float, **run: Any) -> Gradients:
    """Share and ratio both fall as 1 / step, with scatter that they have in common to the part
    ``tied``."""
    draws = np.random.default_rng(seed)
    scatter, own = 0.5 * draws.standard_normal((2, len(STEPS)))
    share = np.exp(scatter) / STEPS
    ratio = np.exp(tied * scatter + np.sqrt(1 - tied**2) * own) / STEPS
    points = [
        (int(step), float(a), float(b)) for step, a, b in zip(STEPS, share, ratio, strict=True)
    ]
    return gradients(make_shared(seed=seed, **run), points)


def follows(*analyses: Gradients) -> ClaimFinding:
    records = [make_shared(seed=each.seed) for each in analyses]
    annealed, raw, averaged = judge(gather_evidence(records, gradients=analyses), [claim("C6")])
    # Snapshots lie on the trunk.
    assert (annealed.verdict, annealed.parts, averaged.parts) == ("not measured", (), ())
    assert annealed.reason.startswith("No records can tell: ")
    assert averaged.reason.startswith("No such records: ")
    return raw


def test_a_shared_trend_is_no_relation() -> None:
    finding = follows(*(along(seed, 0.0) for seed in range(4)))
    assert finding.verdict == "did not hold"
    raw, detrended, *_ = finding.measurements
    # Both fall as 1 / step over three decades, so that the trend rules the raw correlation.
    assert (raw.value or 0.0) > 0.9
    assert (detrended.low or 0.0) < 0 < (detrended.high or 0.0)
    assert follows(*(along(seed, 0.95) for seed in range(4))).verdict == "held"


def test_gradients_of_averaged_weights_are_judged_as_such() -> None:
    averaged = [msgspec.structs.replace(along(seed, 0.95), weights="ema") for seed in range(4)]
    records = [make_shared(seed=each.seed) for each in averaged]
    findings = judge(gather_evidence(records, gradients=averaged), [claim("C6")])
    assert {each.weights: each.verdict for each in findings} == {
        "annealed": "not measured",
        "raw": "not measured",
        "ema": "held",
    }


def test_runs_of_one_precision_are_one_kind_whether_it_was_asked_for_or_not() -> None:
    """At a preset that says TF32, float32 is what a CPU computes in."""
    runs: list[dict[str, Any]] = [
        {"preset": "paper", "environment": {"device": "cpu"}, "recipe": {"precision": precision}}
        | {"variant": {} if asked is None else {"precision": asked}}
        for precision, asked in (("float32", None), ("float32", "float32"), ("bf16", "bf16"))
    ]
    records = [make_shared(seed=seed, **run) for seed, run in enumerate(runs)]
    analyses = [along(seed, 0.95, **run) for seed, run in enumerate(runs)]
    evidence = gather_evidence(records, gradients=analyses)
    assert evidence.warnings == []
    _, raw, _ = judge(evidence, [claim("C6")])
    found = {part.runs for part in raw.parts}
    names = [f"forcefield/vector/augmented/{record.run_id}" for record in records]
    assert found == {tuple(names[:2]), tuple(names[2:])}


def test_few_points_decide_nothing() -> None:
    whole = along(0, 0.6)
    short = gradients(
        make_shared(), [(p.step, p.share or 0.0, p.ratio.value or 0.0) for p in whole.points[:5]]
    )
    finding = follows(short)
    assert finding.verdict == "not measured"
    alone = follows(along(0, 0.95))
    assert (alone.verdict, "one seed" in alone.reason.lower()) == ("undecided", True)
    assert finding.parts[0].runs == (f"forcefield/vector/augmented/{short.run_id}",)
