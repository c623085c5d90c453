"""The ``openequivariance`` backend: its fused convolution, CUDA kernels generated for the irreps
(Bharadwaj et al. 2025).

Written from the sources of version 0.7.0; it has never been run here, where there is no CUDA
device. The variant with atomic sums is used, which takes edges in any order.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor

from equivbench.kernels.backend import Kernel, TableBackend, Tensors
from equivbench.kernels.operations import Convolution


def convolution(operation: Convolution, like: Tensor) -> Kernel:
    """In the library's layout ``ir_mul``, which is the stated one."""
    library = importlib.import_module("openequivariance")
    number = np.float64 if like.dtype == torch.float64 else np.float32
    product = library.TPProblem(
        *irreps(operation),
        # One output for each path, so that its normalisation is e3nn's of that path alone.
        [(path.source, path.edge, n, "uvu", True) for n, path in enumerate(operation.paths)],
        shared_weights=False,
        internal_weights=False,
        irrep_dtype=number,
        weight_dtype=number,
        layout="ir_mul",
    )
    convolve = library.TensorProductConv(product, deterministic=False)

    def run(inputs: Tensors) -> Tensor:
        neighbours, centres = inputs["edge_index"]
        output: Tensor = convolve(
            inputs["x"], inputs["harmonics"], inputs["weights"], centres, neighbours
        )
        return output

    return Kernel(run, f"openequivariance {version('openequivariance')} atomic", compiles=True)


def irreps(operation: Convolution) -> tuple[str, str, str]:
    """Of x, the harmonics and the output. Parity is in the choice of the paths already, so all are
    called even."""
    source = "+".join(f"{channels}x{degree}e" for degree, channels in enumerate(operation.channels))
    edge = "+".join(f"1x{degree}e" for degree in range(operation.edge_lmax + 1))
    target = "+".join(
        f"{operation.channels[path.source]}x{path.target}e" for path in operation.paths
    )
    return source, edge, target


class OpenEquivariance(TableBackend):
    """Convolutions on CUDA."""

    name = "openequivariance"
    kernels = ((Convolution, convolution),)
    dtypes = (torch.float32, torch.float64)

    def missing(self, device: torch.device) -> str | None:
        """The package, a CUDA device, or its compiled extension."""
        if (reason := super().missing(device)) is not None:
            return reason
        if not torch.cuda.is_available():
            return "openequivariance runs on a CUDA device only; there is none"
        try:
            library = importlib.import_module("openequivariance")
        # It asserts that torch was built for a GPU.
        except (ImportError, AssertionError, OSError) as error:
            return f"openequivariance does not load: {error}"
        if not library.BUILT_EXTENSION:
            return (
                f"openequivariance has no extension for torch {torch.__version__}:"
                f" {library.BUILT_EXTENSION_ERROR}"
            )
        return None
