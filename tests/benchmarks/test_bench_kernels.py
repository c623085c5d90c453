"""Speed of the quick kernel cases on backends that torch need not compile, each checked before and
after it is timed."""

from __future__ import annotations

import pytest
import torch

from equivbench.kernels.backend import UnsupportedError
from equivbench.kernels.measuring import AbsentError, prepare
from equivbench.kernels.operations import CASES, Case
from equivbench.specs import MODES, Mode

BACKENDS = ("fused", "torch", "e3nn")
ROUNDS = 8
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def quick() -> list[tuple[Case, Mode]]:
    return [(case, mode) for case in CASES if case.quick for mode in MODES[: case.derivatives + 1]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("case", "mode"), quick(), ids=lambda value: getattr(value, "name", value))
def test_kernel(benchmark, case: Case, mode: Mode, backend: str) -> None:
    try:
        prepared = prepare(case, mode, backend, device=DEVICE)
    except (AbsentError, UnsupportedError) as error:
        pytest.skip(str(error))
    benchmark.group = f"{case.name} {mode}"
    benchmark.extra_info |= {
        "case": case.name,
        "mode": mode,
        "backend": backend,
        "method": prepared.method,
    }
    benchmark.extra_info["errors"] = prepared.errors

    def call() -> None:
        prepared.once()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    # pytest-benchmark's own calibration would take the first, cold calls for typical.
    benchmark.pedantic(call, iterations=prepared.calls, rounds=ROUNDS)
    prepared.verify()
