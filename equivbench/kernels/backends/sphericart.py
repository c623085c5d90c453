"""The ``sphericart`` backend: spherical harmonics with derivatives by recursion (Bigi et al. 2023,
2302.08381).

Written for sphericart-torch 2.0.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from importlib.metadata import version

import torch
from torch import Tensor

from equivbench.kernels.backend import Kernel, Tensors, UnsupportedError
from equivbench.kernels.operations import Operation, SphericalHarmonics

_INSTALL = "pip install sphericart-torch"


class Sphericart:
    """Spherical harmonics, twice differentiable, on a CPU and on CUDA."""

    def missing(self, device: torch.device) -> str | None:
        """Absent, or built for another torch."""
        if device.type not in ("cpu", "cuda"):
            return f"sphericart does not run on {device.type}: run on cpu or cuda"
        if (
            importlib.util.find_spec("sphericart") is None
            or importlib.util.find_spec("sphericart.torch") is None
        ):
            return f"sphericart is not installed: {_INSTALL}"
        try:
            importlib.import_module("sphericart.torch")
        except (ImportError, OSError) as error:
            return f"sphericart does not load with torch {torch.__version__} ({error}): {_INSTALL}"
        return None

    def build(self, operation: Operation, *, dtype: torch.dtype, device: torch.device) -> Kernel:
        """The harmonics; raises ``UnsupportedError`` for other operations and types."""
        if not isinstance(operation, SphericalHarmonics):
            raise UnsupportedError(
                f"sphericart has no {operation.name!r}; it does spherical-harmonics"
            )
        if dtype not in (torch.float32, torch.float64):
            raise UnsupportedError(f"sphericart computes in float32 and float64, not in {dtype}")
        calculator = importlib.import_module("sphericart.torch").SphericalHarmonics(operation.lmax)

        def run(inputs: Tensors) -> Tensor:
            # Its harmonics have norm 1 over the sphere, e3nn's "component" ones have mean square 1.
            output: Tensor = calculator(inputs["vectors"]) * math.sqrt(4 * math.pi)
            return output

        return Kernel(run, f"sphericart {version('sphericart-torch')}", adapt=_polar_axis_last)


def _polar_axis_last(inputs: Tensors) -> Tensors:
    """Its polar axis is z where e3nn's is y: the same axes, turned round in a circle."""
    return {**inputs, "vectors": inputs["vectors"].roll(1, dims=1)}
