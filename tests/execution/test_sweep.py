"""A sweep is ordinary runs that say which point they are: what a request expands to, and that it
goes on where it was."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime

import msgspec
import pytest
from factories import make_record
from running import Bench

from equivbench.axes import AXES, SweepRequest
from equivbench.errors import UsageError
from equivbench.execution.executors import find_executor
from equivbench.execution.plan import make_plan
from equivbench.execution.state import finished_record, open_state, remember_record
from equivbench.execution.sweep import make_sweep
from equivbench.records.plausibility import problems
from equivbench.records.store import load_results, write_record
from equivbench.request import RunRequest
from equivbench.tasks.forcefield.pairs import TENSOR_PRODUCT, VECTOR

NOW = datetime(2026, 11, 23, 16, 14, tzinfo=UTC)
VALUES = {
    "size": ("0.5", "2"),
    "data": ("0.25", "1"),
    "learning-rate": ("1e-3", "4e-3"),
    "optimizer": ("adam", "sgd:0.1"),
    "augmentation": ("0", "0.5"),
    "symmetry-loss": ("0", "100"),
}

SHARED = {
    "pairs": ("forcefield/vector",),
    "device": "cpu",
    "threads": 1,
    "preset": "dev",
    "out": "sweeps",
}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache"))


def request(axis: str, *values: str, **run) -> SweepRequest:
    shared = {**SHARED, **run}
    return SweepRequest(**shared, over=axis, values=values)


def resolved(plan):
    return find_executor("local").resolve(plan)


def points(axis: str, *values: str, **run):
    return resolved(make_sweep(request(axis, *values, **run), NOW)).jobs


def test_every_axis_has_its_test() -> None:
    assert set(VALUES) == set(AXES)


@pytest.mark.parametrize("axis", AXES)
def test_every_arm_and_seed_meets_every_point_and_no_two_runs_share_state(axis: str) -> None:
    found = points(axis, *VALUES[axis], seeds=(0, 1))
    arms = [job.arm for job in found if job.seed == 0]
    # An arm that does not augment is the same wherever the fraction is, or the weight.
    assert arms.count("equivariant") == (1 if AXES[axis].augmenting_only else 2)
    assert arms.count("augmented") == 2
    assert [job.seed for job in found] == sorted(job.seed for job in found)
    declared = resolved(make_plan(RunRequest(**SHARED), NOW)).jobs
    assert len({job.state_dir for job in [*found, *declared]}) == len(found) + 2
    assert len({(job.arm, job.run_id) for job in [*found, *declared]}) == len(found) + 2
    assert all(
        job.labels == {"sweep": axis, "value": job.labels["value"]} and job.request.resume
        for job in found
    )


def test_what_each_axis_changes() -> None:
    size = {job.arm: job.config for job in points("size", "2")}
    assert size == {"equivariant": {"features": 32}, "augmented": {"features": 28}}
    assert [job.fraction for job in points("data", "0.25")] == [0.25, 0.25]
    (rate, _) = points("learning-rate", "2e-3")
    assert rate.recipe == {"learning_rate": 0.002, "tuned_at": None, "tuning_log_sha256": None}
    sgd, adam = points("optimizer", "sgd:0.1", "adam", arms=("augmented",))
    assert (sgd.recipe["optimizer"], sgd.recipe["learning_rate"]) == ("sgd", 0.1)
    assert adam.recipe["optimizer"] == "adam"
    assert "learning_rate" not in adam.recipe
    assert points("augmentation", "0.5")[1].recipe == {"augmentation_fraction": 0.5}
    weights = {job.arm: job.recipe for job in points("symmetry-loss", "30")}
    assert weights == {"equivariant": {}, "augmented": {"symmetry_loss": 30.0}}


@pytest.mark.usefixtures("processor_with_bfloat16")
def test_a_point_in_another_precision_keeps_what_both_change() -> None:
    rate, _ = points("learning-rate", "2e-3", precision="bf16")
    assert (rate.recipe["learning_rate"], rate.recipe["precision"]) == (0.002, "bf16")
    assert rate.labels == {"precision": "bf16", "sweep": "learning-rate", "value": "0.002"}
    _, size = points("size", "2", precision="bf16")
    assert (size.recipe, size.config) == ({"precision": "bf16"}, {"features": 28})


def test_a_width_stays_a_multiple_of_the_heads() -> None:
    (job,) = points(
        "size", "0.3", pairs=("forcefield/tensor-product",), preset="small", arms=("augmented",)
    )
    heads = TENSOR_PRODUCT.arm("augmented").presets["small"].config["heads"]
    assert job.config["width"] % heads == 0


def test_equal_numbers_are_one_point_and_the_text_is_the_number() -> None:
    found = points("data", "0.25", ".250", "2.5e-1", arms=("augmented",))
    assert [job.labels["value"] for job in found] == ["0.25"]
    assert (
        points("learning-rate", "0.0014142135", arms=("augmented",))[0].recipe["learning_rate"]
        == 0.00141421
    )


def test_run_ids_hold_the_point_and_are_file_names() -> None:
    (job,) = points("optimizer", "sgd:0.1", arms=("augmented",), budget="20steps")
    assert job.run_id == f"dev-20steps-seed0-optimizer-sgd-0.1-{job.contest}"
    assert job.contest.startswith("20261123T161400Z-")


@pytest.mark.parametrize(
    ("axis", "values", "says"),
    [
        ("learning_rate", ("1",), "did you mean learning-rate"),
        ("szie", ("1",), "did you mean size"),
        ("size", ("0",), "above 0"),
        ("size", ("big",), "number"),
        ("size", ("nan",), "above 0"),
        ("data", ("1.5",), "at most 1"),
        ("data", ("",), "values"),
        ("learning-rate", ("-1",), "above 0"),
        ("optimizer", ("adamm",), "did you mean"),
        ("optimizer", ("sgd:fast",), "number"),
        ("augmentation", ("2",), "between 0 and 1"),
        ("symmetry-loss", ("-1",), "0 or more"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(
    axis: str, values: tuple[str, ...], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        points(axis, *values)


@pytest.mark.parametrize("axis", ["augmentation", "symmetry-loss"])
def test_what_acts_on_rotated_samples_needs_an_arm_that_augments(axis: str) -> None:
    with pytest.raises(UsageError, match="augments"):
        points(axis, "0.5", arms=("equivariant",))
    assert VECTOR.arm("equivariant").presets["dev"].recipe.augmentation == "none"


def test_its_command_asks_for_the_same_again() -> None:
    words = shlex.split(
        request("data", "0.5", "1", seeds=(0, 1), out="a b", budget="20steps").command()
    )
    assert words[:4] == ["equivbench", "analyze", "sweep", "forcefield/vector"]
    given = dict(zip(words[4::2], words[5::2], strict=True))
    assert given == {
        "--over": "data",
        "--values": "0.5,1",
        "--budget": "20steps",
        "--preset": "dev",
        "--device": "cpu",
        "--threads": "1",
        "--out": "a b",
        "--seeds": "0,1",
    }


def test_a_finished_point_is_known_again_whatever_else_is_swept(tmp_path) -> None:
    (job,) = points("data", "0.5", arms=("augmented",), out=str(tmp_path))
    open_state(job)
    record = msgspec.structs.replace(make_record(arm="augmented"), run_id=job.run_id)
    remember_record(job, write_record(record, tmp_path))
    later = resolved(
        make_sweep(
            request("data", "1", "0.50", arms=("augmented",), out=str(tmp_path)),
            datetime(2027, 1, 1, tzinfo=UTC),
        )
    )
    assert [finished_record(each) is not None for each in later.jobs] == [False, True]
    assert later.jobs[1].run_id == job.run_id


@pytest.mark.slow
def test_a_sweep_goes_on_with_what_is_not_finished(bench: Bench) -> None:
    words = (
        "analyze",
        "sweep",
        "toy/plain",
        "--over",
        "data",
        "--threads",
        "1",
        "--json",
        "-q",
        "--arm",
        "augmented",
    )
    first = bench(*words, "--values", "0.5")
    assert first.code == 0, first.err
    both = bench(*words, "--values", "0.5,1", "--plot", "sweep.svg")
    assert both.code == 0, both.err
    assert [record["reused"] for record in both.json["records"]] == [True, False]
    (sweep,) = both.json["sweeps"]
    assert [
        (point["value"], point["train_samples"], point["finished"]) for point in sweep["points"]
    ] == [
        ("0.5", 128, 1),
        ("1", 256, 1),
    ]
    assert all(
        len(point["rungs"]) == 2 and point["final"]["total"]["value"] > 0
        for point in sweep["points"]
    )
    assert (bench.folder / "sweep.svg").stat().st_size > 0
    records = load_results(bench.folder / "sweeps")
    assert sorted(record.variant["value"] for record in records) == ["0.5", "1"]
    assert [problems(record) for record in records] == [[], []]
