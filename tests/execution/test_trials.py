"""The tuning log: written as it goes, a cut last line is dropped, trials of other settings are
refused."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from equivbench.errors import FailedError, UsageError
from equivbench.execution.trials import Trial, TrialLog

TRIAL = Trial(
    pair="toy/plain",
    arm="equivariant",
    preset="dev",
    learning_rate=1e-3,
    batch_size=8,
    seed=1000,
    budget="50steps",
    device="cpu",
    threads=1,
    status="completed",
    reason=None,
    total=1.5,
    explained=0.5,
    share=0.0,
    steps=50,
    seconds=0.1,
    config={"width": 3},
    recipe={"ema": 0.999},
)


def replace(**changes):
    return msgspec.structs.replace(TRIAL, **changes)


def test_trials_are_on_disk_as_soon_as_they_are_added(tmp_path):
    path = tmp_path / "a" / "log.jsonl"
    log = TrialLog(path)
    for rate in (1e-3, 2e-3):
        log.add(replace(learning_rate=rate))
        assert TrialLog(path).trials == log.trials
    assert log.sha256() == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("cut", [1, 5, 50])
def test_a_last_line_cut_short_is_dropped_and_the_log_goes_on(tmp_path, cut):
    path = tmp_path / "log.jsonl"
    log = TrialLog(path)
    log.add(TRIAL)
    log.add(replace(learning_rate=2e-3))
    path.write_bytes(path.read_bytes()[:-cut])
    log = TrialLog(path)
    assert log.trials == [TRIAL]
    log.add(replace(learning_rate=4e-3))
    assert [trial.learning_rate for trial in TrialLog(path).trials] == [1e-3, 4e-3]


def test_something_else_is_not_a_log(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"not": "a trial"}\n')
    with pytest.raises(FailedError, match="not a tuning log"):
        TrialLog(path)


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"width": 4}},
        {"budget": "60steps"},
        {"recipe": {"ema": 0.9}},
        {"threads": 2},
        {"seed": 1},
    ],
)
def test_trials_under_other_settings_are_refused_by_name(tmp_path, change):
    log = TrialLog(tmp_path / "log.jsonl")
    log.add(TRIAL)
    log.require_same_study(replace(learning_rate=5.0, batch_size=1, total=9.0))
    log.require_same_study(replace(arm="augmented", **change))
    with pytest.raises(UsageError, match=next(iter(change))):
        log.require_same_study(replace(**change))


def test_a_recipe_field_that_a_log_is_too_old_to_have_had_its_default(tmp_path):
    log = TrialLog(tmp_path / "log.jsonl")
    log.add(TRIAL)
    log.require_same_study(replace(recipe={**TRIAL.recipe, "augmentation_fraction": 1.0}))
    with pytest.raises(UsageError, match="recipe"):
        log.require_same_study(replace(recipe={**TRIAL.recipe, "augmentation_fraction": 0.5}))
