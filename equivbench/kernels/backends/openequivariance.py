"""The ``openequivariance`` backend: its fused convolution, CUDA kernels generated for the irreps
(Bharadwaj et al. 2025).

Written from the sources of version 0.7.0; it has never been run here, where there is no CUDA
device. The variant with atomic sums is used, which takes edges in any order.
"""

from __future__ import annotations

import importlib
import importlib.util
from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor

from equivbench.errors import FailedError
from equivbench.kernels.backend import Kernel, Tensors, UnsupportedError
from equivbench.kernels.operations import Convolution, Operation

_INSTALL = "pip install openequivariance, with a CUDA toolkit"
_TYPES = {torch.float32: np.float32, torch.float64: np.float64}


class OpenEquivariance:
    """Convolutions in the library's layout ``ir_mul``, which is the stated one."""

    def missing(self, device: torch.device) -> str | None:
        """The package, a CUDA device, or its compiled extension."""
        if device.type != "cuda" or not torch.cuda.is_available():
            return f"OpenEquivariance runs on a CUDA device only: {_INSTALL}"
        if importlib.util.find_spec("openequivariance") is None:
            return f"OpenEquivariance is not installed: {_INSTALL}"
        try:
            library = importlib.import_module("openequivariance")
        except (
            ImportError,
            AssertionError,
            OSError,
        ) as error:  # it asserts that torch was built for a GPU
            return f"OpenEquivariance does not load ({error}): {_INSTALL}"
        if not library.BUILT_EXTENSION:
            return (
                f"OpenEquivariance has no extension for torch {torch.__version__}"
                f" ({library.BUILT_EXTENSION_ERROR}): {_INSTALL}"
            )
        return None

    def build(self, operation: Operation, *, dtype: torch.dtype, device: torch.device) -> Kernel:
        """The convolution; raises ``UnsupportedError`` for other operations and types,
        ``FailedError`` if it is missing."""
        if not isinstance(operation, Convolution):
            raise UnsupportedError(
                f"openequivariance has no {operation.name!r} here; it does convolution"
            )
        if dtype not in _TYPES:
            raise UnsupportedError(
                f"openequivariance computes in float32 and float64, not in {dtype}"
            )
        if (problem := self.missing(device)) is not None:
            raise FailedError(problem)
        library = importlib.import_module("openequivariance")
        product = library.TPProblem(
            *irreps(operation),
            # One output for each path, so that its normalisation is e3nn's of that path alone.
            [
                (path.source, path.edge, number, "uvu", True)
                for number, path in enumerate(operation.paths)
            ],
            shared_weights=False,
            internal_weights=False,
            irrep_dtype=_TYPES[dtype],
            weight_dtype=_TYPES[dtype],
            layout="ir_mul",
        )
        convolution = library.TensorProductConv(product, deterministic=False)

        def run(inputs: Tensors) -> Tensor:
            neighbours, centres = inputs["edge_index"]
            output: Tensor = convolution(
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
