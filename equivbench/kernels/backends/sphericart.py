"""The ``sphericart`` backend: spherical harmonics with derivatives by recursion (Bigi et al. 2023,
2302.08381).

Written for sphericart-torch 2.0.
"""

from __future__ import annotations

import importlib
import math
from importlib.metadata import version

import torch
from torch import Tensor

from equivbench.kernels.backend import Kernel, TableBackend, Tensors
from equivbench.kernels.operations import SphericalHarmonics


def harmonics(operation: SphericalHarmonics, like: Tensor) -> Kernel:
    """Its polar axis is z where e3nn's is y: the same axes, turned round in a circle."""
    calculator = importlib.import_module("sphericart.torch").SphericalHarmonics(operation.lmax)

    def adapt(inputs: Tensors) -> Tensors:
        return {**inputs, "vectors": inputs["vectors"].roll(1, dims=1)}

    def run(inputs: Tensors) -> Tensor:
        vectors = inputs["vectors"]
        nowhere = vectors.square().sum(1, keepdim=True) == 0
        # Its harmonics have norm 1 over the sphere, e3nn's "component" ones have mean square 1.
        output: Tensor = calculator(vectors.masked_fill(nowhere, 1.0)) * math.sqrt(4 * math.pi)
        return torch.cat([output[:, :1], output[:, 1:].masked_fill(nowhere, 0.0)], dim=1)

    return Kernel(run, f"sphericart {version('sphericart-torch')}", adapt)


class Sphericart(TableBackend):
    """Spherical harmonics, twice differentiable, on a CPU and on CUDA."""

    name = "sphericart"
    kernels = ((SphericalHarmonics, harmonics),)
    dtypes = (torch.float32, torch.float64)

    def missing(self, device: torch.device) -> str | None:
        """Absent, or built for another torch."""
        if (reason := super().missing(device)) is not None:
            return reason
        try:
            importlib.import_module("sphericart.torch")
        except (ImportError, OSError) as error:
            return f"sphericart does not load with torch {torch.__version__} ({error})"
        return None
