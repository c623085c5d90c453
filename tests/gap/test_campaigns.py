"""Which of several campaigns under one setting counts: nobody chooses it by who leads."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
from factories import make_record
from hypothesis import given
from hypothesis import strategies as st

from equivbench.gap.campaigns import telling_campaign
from equivbench.records.disturbed import disturbance
from equivbench.records.schema import RunRecord


def campaign(seeds: int, day: int, waited: float = 0.0) -> list[RunRecord]:
    """Runs of one day, of which the first ``waited`` so many of its 103 seconds for a core."""
    return [
        make_record(
            seed=seed,
            created=f"2026-01-{day:02d}T03:04:05Z",
            contest=f"day-{day}",
            machine_share={"stalled_seconds": waited if seed == 0 else 0.0},
        )
        for seed in range(seeds)
    ]


def days(records: Sequence[RunRecord]) -> set[str]:
    return {record.created[8:10] for record in records}


@given(order=st.randoms(use_true_random=False))
def test_one_that_can_give_a_verdict_then_more_seeds_then_the_newest(order: random.Random) -> None:
    everything = [
        *campaign(3, 2),
        *campaign(4, 4),
        *campaign(4, 6),
        *campaign(9, 8, waited=50.0),
        *campaign(2, 10),
    ]
    order.shuffle(everything)
    assert days(telling_campaign(everything)) == {"06"}


def test_a_single_quiet_record_takes_no_measurements_place() -> None:
    waited = campaign(3, 2, waited=50.0)
    assert disturbance(waited[0]) is not None
    assert days(telling_campaign([*waited, *campaign(1, 4)])) == {"02"}
    assert days(telling_campaign([*waited, *campaign(3, 4)])) == {"04"}
    # Of as many seeds the one that had its machine, however few and old.
    assert days(telling_campaign([*campaign(2, 2), *campaign(2, 4, waited=50.0)])) == {"02"}


def test_seeds_count_that_both_contestants_came_to_an_end_of() -> None:
    def both(seeds: int, day: int, failed: int = 0) -> list[RunRecord]:
        own = campaign(seeds, day)
        others = [msgspec.structs.replace(each, arm="augmented") for each in own]
        stopped = [msgspec.structs.replace(each, status="failed") for each in others[:failed]]
        return [*own, *stopped, *others[failed:]]

    assert make_record().arm == "equivariant"
    assert days(telling_campaign([*both(4, 2), *both(5, 4, failed=2)])) == {"02"}
    assert days(telling_campaign([*both(4, 2), *both(5, 4)])) == {"04"}
    # A further arm's runs, however many, are no evidence on the contestants.
    further = [msgspec.structs.replace(each, arm="frames") for each in campaign(9, 6)]
    assert days(telling_campaign([*both(4, 2), *both(1, 6), *further])) == {"02"}


def test_the_campaign_of_a_contest_that_is_named() -> None:
    everything = [*campaign(4, 2), *campaign(1, 4)]
    assert days(telling_campaign(everything, ["day-4"])) == {"04"}
    assert days(telling_campaign(everything, ["day-2", "day-4"])) == {"02"}
    assert days(telling_campaign(everything, ["another"])) == {"02"}
