"""Another kernel backend changes the speed of a run and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from dev_jobs import dev_job
from toy_kernels import registered

from equivbench.errors import UsageError
from equivbench.kernels.backend import Kernel, UnsupportedError, backend
from equivbench.kernels.backends import fused
from equivbench.kernels.fused import native
from equivbench.kernels.operations import Operation
from equivbench.records.schema import RunRecord
from equivbench.training.assembly import build_trainer
from equivbench.training.job import Job
from equivbench.training.record import make_record

TENSOR_PRODUCT = ("forcefield/tensor-product", "equivariant")
ARMS = {
    TENSOR_PRODUCT: ("fused", "e3nn"),
    ("forcefield/vector", "equivariant"): ("fused",),
    ("forcefield/vector", "augmented"): ("fused",),
    ("forcefield/so2-convolution", "equivariant"): ("fused",),
}
"""The arms that take a kernel backend, and the backends that have their operation."""


def job_on(
    folder: Path, kernels: str | None, forces: str, named: tuple[str, str] = TENSOR_PRODUCT
) -> Job:
    place, variant = folder / str(kernels), {"forces": forces}
    return dev_job(place, *named, budget="8steps", kernels=kernels, variant=variant)


def trained(folder: Path, kernels: str | None, forces: str, named: tuple[str, str]) -> RunRecord:
    job = job_on(folder, kernels, forces, named)
    trainer = build_trainer(job)
    trainer.train_slice(1e9)
    return make_record(job, trainer, [], None, interrupted=True)


# Forces as a gradient take a kernel's output and both its derivatives, direct ones a part of these.
CASES = [(TENSOR_PRODUCT, "direct"), *((named, "conservative") for named in ARMS)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("named", "forces"), CASES, ids=[f"{' '.join(named)} {forces}" for named, forces in CASES]
)
def test_losses_along_a_run_are_the_same_to_rounding_on_every_backend(
    tmp_path: Path, named: tuple[str, str], forces: str
) -> None:
    reference = trained(tmp_path, None, forces, named)
    for name in ARMS[named]:
        reason = backend(name).missing(torch.device("cpu"))
        if reason is not None:
            pytest.skip(reason)
        other = trained(tmp_path, name, forces, named)
        assert other.model.kernels == name
        totals = [[point.test.total for point in run.trace] for run in (reference, other)]
        # float32 sums in another order, 1e-7 apart at first; eight steps of AdamW, which divides by
        # small numbers, amplify them.
        assert totals[1] == pytest.approx(totals[0], rel=1e-4)
        assert len(totals[0]) > 1


def test_what_a_backend_refuses_of_a_network_names_the_option(tmp_path: Path) -> None:
    def refuses(operation: Operation) -> Kernel:
        raise UnsupportedError(f"mine does linear maps only, not {operation.name}")

    with (
        registered(mine=refuses),
        pytest.raises(UsageError, match="--kernels mine: mine does linear maps only, not convol"),
    ):
        build_trainer(job_on(tmp_path, "mine", "direct"))


@pytest.mark.slow
@pytest.mark.skipif(native.no_compiler() is not None, reason=str(native.no_compiler()))
def test_no_evaluation_waits_for_a_compiler(tmp_path: Path) -> None:
    for cache in (native.library, native.compiled, fused._compiled_and_checked):
        cache.cache_clear()
    trainer = build_trainer(job_on(tmp_path, "fused", "direct"))
    built = native.compiled.cache_info().misses
    # Verification runs a copy in float64.
    trainer.arm.evaluator.evaluate(trainer.arm.module, floor=True)
    assert native.compiled.cache_info().misses == built > 0
