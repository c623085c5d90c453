"""What a board opens with: of each pair the gap that says most, whoever leads in it, and sentences
that say no more than the gaps do."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from factories import make_run
from hypothesis import given
from hypothesis import strategies as st

from equivbench.gap.efficiency import PairGap, efficiency_gap
from equivbench.gap.intervals import Quantity
from equivbench.records.schema import RunRecord
from equivbench.report.answer import answer_text, answers, leaders_part, telling_gaps

STEPS = [1000 >> k for k in range(6, -1, -1)]


def records(effect: float, seeds: int = 3, **more: Any) -> list[RunRecord]:
    """Both arms, the log ratio of whose losses is about ``effect`` at each seed."""
    found = []
    for arm, sign in (("equivariant", 0.5), ("augmented", -0.5)):
        for seed in range(seeds):
            level = math.exp(sign * (effect + 0.01 * seed))
            found.append(
                make_run(arm, lambda n, k=level: k * n**-0.5, STEPS, tau=0.1, seed=seed, **more)
            )
    return found


@pytest.fixture(scope="module")
def gap() -> PairGap:
    (found,) = efficiency_gap(records(-0.5))
    return found


@given(order=st.randoms(use_true_random=False))
def test_the_largest_budget_then_the_campaign_that_says_most(
    gap: PairGap, order: random.Random
) -> None:
    less = [
        replace(gap, budget={"kind": "samples", "limit": 10**6}),
        replace(gap, budget={"kind": "seconds", "limit": 50.0}, n_seeds=12),
        replace(gap, n_seeds=gap.n_seeds - 1, day="2099-01-01"),
        replace(gap, day="1999-01-01", behind="equivariant"),
        replace(gap, n_seeds=12, day="2099-01-01", disturbed="augmented seed 0: it had to wait"),
        replace(gap, budget={"kind": "seconds", "limit": 1e6}, variant={"sweep": "data"}),
    ]
    everything = [gap, *less]
    order.shuffle(everything)
    assert telling_gaps(everything) == [gap]
    another = replace(gap, pair="zebra")
    assert telling_gaps([another, *everything]) == [gap, another]


def test_who_leads_by_how_much_and_where_there_is_no_verdict() -> None:
    gaps = telling_gaps(
        efficiency_gap(
            [
                *records(-0.7, pair="ash"),
                *records(0.2, pair="birch"),
                *records(-0.2, pair="cedar"),
                *records(0.5, pair="maple", seeds=1),
            ]
        )
    )
    text = answer_text(gaps)
    assert text.startswith(
        "The equivariant arm leads in ash (0.50 of the other's loss after 100s on toy-set) and "
        "cedar (0.83 of "
    )
    assert (
        "; the augmented arm leads in birch (0.81 of the other's loss after 100s on toy-set);"
        in text
    )
    assert text.endswith(f"there is no verdict in maple ({gaps[-1].reason}).")


def test_a_pair_on_two_backends_is_named_once_by_its_gap_on_the_default_one(gap: PairGap) -> None:
    usual = replace(gap, kernels={"equivariant": "torch", "augmented": "torch"}, behind="augmented")
    faster = replace(gap, kernels={"equivariant": "fused", "augmented": "torch"}, behind=None)
    text = answers([faster, usual])[gap.task]
    assert text.startswith("The equivariant arm leads in pair (")
    assert text.count("pair") == 1
    assert len(telling_gaps([faster, usual])) == 2


@pytest.mark.parametrize("behind", ["equivariant", "augmented", None])
def test_the_leaders_part_is_below_one_and_keeps_its_interval(
    gap: PairGap, behind: str | None
) -> None:
    ratio = Quantity(1.25, 1.0, 2.0) if behind == "equivariant" else Quantity(0.8, 0.5, 1.0)
    asked = replace(gap, behind=behind, loss_ratio=ratio)  # type: ignore[arg-type]
    assert leaders_part(asked) == Quantity(0.8, 0.5, 1.0)


def test_nothing_measured_is_no_answer() -> None:
    assert telling_gaps([]) == []
