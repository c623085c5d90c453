"""What an analysis says of its run's options is that by which runs are told apart."""

from __future__ import annotations

import time
from typing import Any

import pytest
from factories import make_record

from equivbench.records.declared import effective_variant
from equivbench.request import RunRequest
from equivbench.studies.gradients.record import GradientsRequest
from equivbench.studies.run import TrainedRun
from equivbench.training.arm import resolve_arm
from equivbench.training.job import Job


@pytest.mark.parametrize(
    ("device", "asked", "computed", "told"),
    [
        ("cpu", None, "float32", None),
        ("cpu", "float32", "float32", None),
        ("cpu", "bf16", "bf16", "bf16"),
        ("cuda:0", None, "tf32", None),
        ("cuda:0", "float32", "float32", "float32"),
    ],
)
def test_a_precision_is_told_where_the_run_would_have_computed_in_another(
    device: str, asked: str | None, computed: str, told: str | None
) -> None:
    """The preset says TF32. The device is that of the run, wherever it is analysed."""
    chosen: dict[str, Any] = {} if asked is None else {"precision": asked}
    job = Job(
        request=RunRequest(preset="paper"),
        pair="forcefield/vector",
        arm="augmented",
        seed=0,
        budget="60s",
        run_id="one",
        device=device,
        recipe=chosen,
        labels=chosen,
    )
    request = GradientsRequest(runs=("one",))
    trained = TrainedRun(request, job, resolve_arm(job), "0" * 64, 10, "cpu", time.monotonic())
    variant = trained.described(lambda record: request)["variant"]
    assert variant.get("precision") == told
    record = make_record(
        task="forcefield",
        pair="vector",
        arm="augmented",
        preset="paper",
        variant={"forces": "direct", **chosen},
        recipe={"precision": computed},
        environment={"device": "cpu" if device == "cpu" else "NVIDIA H100"},
    )
    assert variant == effective_variant(record)
