"""Backends beside each other: the same step and the same operation on e3nn, on the best of others
and on ours, and the commands for what is not there."""

from __future__ import annotations

import math
from typing import Any

import pytest
from factories import make_record
from toy_samples import kernel_samples

from equivbench.records.schema import RunRecord
from equivbench.registry import PAIRS
from equivbench.report.kernel_axis import (
    OURS,
    arm_steps,
    backends_of,
    operations_table,
    steps_table,
)
from equivbench.report.render import row_texts


def timed(kernels: str, median: float, *, model: str = "nequip", **more: Any) -> RunRecord:
    """A run of a built-in model whose median step takes so many seconds."""
    settings: dict[str, Any] = {
        "task": "forcefield",
        "pair": "tensor-product",
        "model": {"name": model, "kernels": kernels},
        "throughput": {
            "step_seconds": {"p10": 0.9 * median, "p50": median, "p90": 1.1 * median},
        },
        **more,
    }
    return make_record(**settings)


def test_one_arm_on_all_backends_is_one_row() -> None:
    records = [
        timed("e3nn", 0.8),
        timed("cuequivariance", 0.4),
        timed("openequivariance", 0.5),
        timed("torch", 0.2),
        timed("fused", 0.1),
    ]
    (steps,) = arm_steps(records)
    assert steps.seconds == pytest.approx(
        {"e3nn": 0.8, "cuequivariance": 0.4, "openequivariance": 0.5, "torch": 0.2, "fused": 0.1}
    )
    (row,) = row_texts(steps_table([steps]))
    assert (row["e3nn"], row["torch"], row["fused"]) == ("800 ms", "200 ms", "100 ms")
    assert (row["other"], row["other_seconds"]) == ("cuequivariance", "400 ms")
    assert (row["x torch"], row["x e3nn"]) == ("2.00", "8.00")


def test_seeds_are_averaged_and_sweeps_and_unfinished_runs_are_left_out() -> None:
    records = [
        timed("torch", 0.1, seed=0),
        timed("torch", 0.4, seed=1),
        timed("torch", 9.0, seed=2, variant={"sweep": "size", "value": "2"}),
        timed("torch", 9.0, seed=3, status="failed", reason="no memory", final=None),
    ]
    (steps,) = arm_steps(records)
    assert steps.seconds == pytest.approx({"torch": math.sqrt(0.1 * 0.4)})


def test_what_is_missing_has_its_command_and_what_cannot_be_says_so() -> None:
    (steps,) = arm_steps([timed("torch", 0.2)])
    table = steps_table([steps])
    (row,) = row_texts(table)
    assert (row["e3nn"], row["other"], row["fused"]) == ("not run", "not run", "not run")
    (note,) = [each for each in table.notes if each.startswith("forcefield/tensor-product ")]
    lacking = note.removeprefix("forcefield/tensor-product was not run on ").partition(" (on ")[0]
    # Of a CPU: what runs on GPUs alone is no gap of its records.
    assert lacking.split(", ") == ["fused", "e3nn", "e3nn-compiled", "cuequivariance"]
    assert note.endswith(
        " (on any machine): equivbench run forcefield/tensor-product --kernels NAME"
    )
    assert any("equivbench doctor" in each for each in table.notes)
    # PaiNN's message is no operation of e3nn.
    (painn,) = arm_steps([timed("torch", 0.2, model="painn", pair="vector")])
    (row,) = row_texts(steps_table([painn]))
    assert (row["e3nn"], row["fused"]) == ("cannot", "not run")
    command = "equivbench run forcefield/vector --kernels fused"
    said = f"forcefield/vector was not run on fused (on any machine): {command}"
    assert said in steps_table([painn]).notes


def test_machines_are_told_apart_in_what_is_missing() -> None:
    gpu = {"machine_key": "toy-gpu", "device": "Toy GPU"}
    records = [
        timed("torch", 0.2),
        timed("fused", 0.1, environment={"machine_key": "second-2t"}),
        timed("fused", 0.1, environment=gpu),
    ]
    notes = steps_table(arm_steps(records)).notes
    of_pair = [each for each in notes if each.startswith("forcefield/tensor-product was")]
    lacking = {
        where.partition(")")[0]: names.split(", ")
        for names, _, where in (
            each.removeprefix("forcefield/tensor-product was not run on ").partition(" (on ")
            for each in of_pair
        )
    }
    assert list(lacking) == ["second-2t", "toy-cpu-2t", "toy-gpu"]
    assert "torch" not in lacking["toy-cpu-2t"]
    assert "torch" in lacking["second-2t"]
    assert "openequivariance" in lacking["toy-gpu"]
    assert "openequivariance" not in lacking["second-2t"]


def test_every_pair_that_takes_a_backend_is_named_once_some_arm_was_timed() -> None:
    notes = " ".join(steps_table(arm_steps([timed("torch", 0.2)])).notes)
    assert "forcefield/vector was not run on torch, fused" in notes
    assert steps_table([]).notes == [steps_table(arm_steps([timed("torch", 0.2)])).notes[-1]]


def test_the_commands_are_of_pairs_and_backends_that_there_are() -> None:
    assert set(OURS) <= set(backends_of("nequip", "cpu"))
    assert "openequivariance" in backends_of("nequip", "cuda")
    assert backends_of("painn", "cpu") == ["torch", "fused"]
    assert backends_of("esen", "cpu") == backends_of("esen", "cuda") == ["torch", "fused"]
    assert backends_of("no such model", "cpu") == []
    assert "forcefield/tensor-product" in PAIRS.without_plugins()


def test_an_arm_without_operations_of_a_backend_has_no_row() -> None:
    assert arm_steps([timed("torch", 0.2, model="escaip", arm="augmented")]) == []
    foreign = [timed(name, 0.2, model="of a plug-in") for name in ("torch", "fused")]
    assert len(arm_steps(foreign)) == 1


def test_operations_are_compared_where_two_sides_were_timed() -> None:
    samples = [
        kernel_samples([4.0], backend="e3nn"),
        kernel_samples([3.0], backend="e3nn-compiled"),
        kernel_samples([2.0], backend="cuequivariance"),
        kernel_samples([1.0], backend="torch"),
        kernel_samples([0.5], backend="fused"),
        kernel_samples([0.5], backend="fused", case="alone"),
        kernel_samples([4.0], backend="e3nn", mode="backward"),
        kernel_samples([1.0], backend="fused", mode="backward"),
    ]
    rows = row_texts(operations_table(samples))
    assert [(row["case"], row["mode"]) for row in rows] == [
        ("convolution-c64-l2", "forward"),
        ("convolution-c64-l2", "backward"),
    ]
    first, second = rows
    assert (first["other"], first["ours"]) == ("cuequivariance", "fused")
    assert (first["x e3nn"], first["x other"]) == ("8.00", "4.00")
    assert (second["other"], second["x e3nn"], second["x other"]) == ("-", "4.00", "-")
    assert operations_table([]).rows == []
