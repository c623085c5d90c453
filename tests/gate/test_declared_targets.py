"""The target losses that pairs declare are those of the records that they name."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from equivbench.records.schema import RunRecord
from equivbench.registry import PAIRS
from equivbench.request import DEFAULT_KERNELS
from equivbench.specs import PairSpec, TargetLoss

RESULTS = Path(__file__).parents[2] / "results"
TARGETS = [
    pytest.param(entry.value, target, id=f"{name} {target.arm}")
    for name, entry in PAIRS.entries().items()
    for target in entry.value.targets
]


def named_by(pair: PairSpec, target: TargetLoss) -> list[RunRecord]:
    """The records in the repository that ``target`` is from, the first of each seed."""
    files = sorted(RESULTS.glob(f"*/{pair.task}/{pair.name}/{target.arm}/{target.preset}-*.json"))
    records = [msgspec.json.decode(each.read_bytes(), type=RunRecord) for each in files]
    own = [
        each
        for each in records
        if (each.git.commit, each.created[:10]) == (target.commit, target.day)
        and each.model.kernels == DEFAULT_KERNELS
        and each.budget.extends is None
    ]
    newest_first = sorted(own, key=lambda each: each.created, reverse=True)
    return [*{each.seed: each for each in newest_first}.values()]


@pytest.mark.parametrize(("pair", "target"), TARGETS)
def test_a_target_is_the_geometric_mean_over_the_seeds(pair: PairSpec, target: TargetLoss) -> None:
    records = named_by(pair, target)
    assert len(records) >= 3
    assert {f"{each.budget.limit:g}s" for each in records} == {target.budget}
    assert all(each.final_on_part is not None for each in records)
    mean = np.exp(np.mean([np.log(each.final_on_part.total) for each in records]))
    # Declared to five digits.
    assert target.loss == pytest.approx(mean, rel=5e-5)


def test_both_arms_of_a_pair_with_targets_have_one() -> None:
    for entry in PAIRS.entries().values():
        arms = {target.arm for target in entry.value.targets}
        assert not arms or arms == {arm.name for arm in entry.value.contestants}
