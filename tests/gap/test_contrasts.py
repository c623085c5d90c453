"""Contrasts of further arms with the augmented one: the gap's own numbers and rules, and Holm's
correction over all arms that are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from factories import make_run

from equivbench.gap.campaigns import LEAD_SEEDS
from equivbench.gap.contrasts import ArmContrast, arm_contrasts, arm_verdicts
from equivbench.gap.efficiency import efficiency_gap
from equivbench.gap.verdicts import holm
from equivbench.records.schema import RunRecord

STEPS = [1000 >> k for k in range(6, -1, -1)]


def side(arm: str, level: float, seeds: int = 6, draw: int = 0, **more: Any) -> list[RunRecord]:
    """Runs of an arm that end at about ``level``, a tenth apart over seeds."""
    ends = level * np.exp(0.1 * np.random.default_rng(draw).standard_normal(seeds))
    return [
        make_run(
            arm,
            lambda n, end=end: end * (n / STEPS[-1]) ** -0.5,
            STEPS,
            tau=0.1,
            seed=seed,
            **more,
        )
        for seed, end in enumerate(ends.tolist())
    ]


def between(own: list[RunRecord], plain: list[RunRecord]) -> ArmContrast:
    (found,) = arm_contrasts([*own, *plain], own[0].arm)
    return found


@pytest.mark.parametrize("level", [0.5, 0.98, 2.0])
def test_of_the_equivariant_arm_it_is_what_the_gap_says(level: float) -> None:
    own, plain = side("equivariant", level, draw=1), side("augmented", 1.0, draw=2)
    found = between(own, plain)
    (gap,) = efficiency_gap([*own, *plain])
    assert found.ratio.value == pytest.approx(gap.loss_ratio.value)
    assert found.ratio.low == pytest.approx(gap.loss_ratio.low)
    assert found.ratio.high == pytest.approx(gap.loss_ratio.high)
    assert found.contrast.p == pytest.approx(gap.p)
    (verdict,) = arm_verdicts([found])
    word = {None: "not decided", "equivariant": "behind", "augmented": "ahead"}[gap.behind]
    assert verdict.startswith(f"{word}, p ")


def test_the_correction_is_over_all_that_are_compared() -> None:
    plain = side("augmented", 1.0)
    levels = [0.9, 0.93, 1.02, 1.12]
    contrasts = [
        between(side(f"arm-{place}", level, draw=place + 1), plain)
        for place, level in enumerate(levels)
    ]
    expected = holm([each.contrast.p or 0.0 for each in contrasts])
    for each, p, verdict in zip(contrasts, expected, arm_verdicts(contrasts), strict=True):
        decided = p < 0.05
        assert verdict.startswith("not decided") is not decided
        if decided:
            assert verdict.startswith("ahead" if (each.ratio.value or 0.0) < 1 else "behind")
    # What decides nothing is no test, and costs the others nothing.
    few = between(side("few", 0.5, 2), plain[:2])
    assert arm_verdicts([*contrasts, few])[:-1] == arm_verdicts(contrasts)


def test_every_reason_for_which_nothing_is_decided() -> None:
    plain = side("augmented", 1.0)
    own = side("frames", 0.5, draw=1)
    cases: dict[str, tuple[list[RunRecord], list[RunRecord]]] = {
        "5 of 6 seeds finished": (
            [*own[:5], *side("frames", 0.5, draw=1, status="failed", reason="no memory")[5:]],
            plain,
        ),
        "2 seeds; a verdict takes 3": (own[:2], plain[:2]),
        "the arms of seeds 0, 1, 2, 3, 4, 5 did not take turns in one contest": (
            side("frames", 0.5, contest="1" * 8),
            plain,
        ),
        "neither arm is past the best predictor that needs no training by more than its interval": (
            side("frames", 50.0, draw=1),
            side("augmented", 60.0),
        ),
        "the frames arm is not past the best predictor that needs no training by more than its "
        "interval": (side("frames", 50.0, draw=1), plain),
    }
    assert LEAD_SEEDS == 3
    for reason, (first, second) in cases.items():
        assert arm_verdicts([between(first, second)]) == [reason]
    busy = side("frames", 0.5, draw=1)
    share = busy[2].machine_share
    assert share is not None
    share.cpu_share = 0.05
    (verdict,) = arm_verdicts([between(busy, plain)])
    assert verdict.startswith("frames seed 2: the machine was busy")


def test_arms_that_share_no_seed_are_not_compared() -> None:
    records = [*side("frames", 0.5)[:2], *side("augmented", 1.0)[3:]]
    assert arm_contrasts(records, "frames") == []
