"""The Triton kernels: in the interpreter on a CPU, compiled for GPUs that need not be there,
and on one that is."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from triton_process import CONFIGURATIONS

from equivbench.kernels.fused.edge_operator import along_edges
from equivbench.kernels.measuring import prepare
from equivbench.kernels.operations import (
    Case,
    Convolution,
    EdgeProduct,
    Operation,
    SO2Convolution,
    SO2Message,
    SymmetricContraction,
)

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def run(*arguments: str, **environment: str) -> Any:
    script = Path(__file__).parents[1] / "support" / "triton_process.py"
    # OMP_NUM_THREADS: the interpreter works on arrays of a few numbers.
    settings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env=settings,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def interpreted() -> Any:
    return run("interpret", TRITON_INTERPRET="1")


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_output_and_both_derivatives_are_the_references(
    configuration: str, interpreted: Any
) -> None:
    # Rounding of sums of some hundred products.
    allowed = 1e-6 if "float32" in configuration else 1e-14
    assert {
        name: error for name, error in interpreted[configuration].items() if not error <= allowed
    } == {}


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("architecture", ["80", "90"])
def test_kernels_fit_the_registers_of_a_gpu(architecture: str, tmp_path: Path) -> None:
    for kernel, used in run("compile", architecture, TRITON_CACHE_DIR=str(tmp_path)).items():
        assert used["spilled"] == 0
        # 65,536 registers of a multiprocessor over 32 lanes and 128: 16 warps in flight at least;
        # over 200, for all sums of a node's polynomials and their tangents, 10.
        assert used["registers"] <= (200 if kernel == "symmetric-contraction gradients" else 128)


def test_other_shapes_are_refused_before_a_kernel_reads_past_the_end() -> None:
    operation = Convolution((4, 4), 1, 1)
    edges = torch.zeros(2, 3, dtype=torch.int64)
    x, harmonics, weights = (
        torch.zeros(2, 16),
        torch.zeros(3, 4),
        torch.zeros(3, operation.weight_size),
    )
    for wrong in (
        (x[:, 1:], harmonics, weights),
        (x, harmonics[1:], weights),
        (x, harmonics, weights[:, 1:]),
    ):
        with pytest.raises(ValueError, match="must be"):
            along_edges(operation, *wrong, edges)


@pytest.mark.cuda
@needs_gpu
@needs_triton
@pytest.mark.parametrize(
    "operation",
    [
        Convolution((32, 32, 32), 2, 2),
        Convolution((128, 64, 32), 2, 1),
        EdgeProduct(48, 2),
        SymmetricContraction(48, 2, 1),
        SO2Convolution(48, 24, 2, 1),
        SO2Message(70, 8, 2, 1, 2),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_on_a_gpu(operation: Operation, dtype: torch.dtype) -> None:
    sizes = {"nodes": 40, "edges": 400, "elements": 3}
    case = Case(operation.name, operation, sizes, 2, "test")
    prepared = prepare(
        case, "double_backward", "fused", dtype=dtype, device=torch.device("cuda")
    )  # raises if one is wrong
    assert prepared.method == "triton"
