"""The ``torch`` backend: every operation in plain torch, as our networks run it by default."""

from __future__ import annotations

from functools import singledispatch

import torch

from equivbench.kernels.attention_operations import InvariantPointAttention, PairBiasAttention
from equivbench.kernels.backend import Kernel, UnsupportedError
from equivbench.kernels.backends import plain_attention as attention
from equivbench.kernels.backends import plain_irreps as irreps
from equivbench.kernels.backends.plain_convolution import convolution
from equivbench.kernels.backends.plain_cube import cube_kernel
from equivbench.kernels.backends.plain_neighbours import neighbour_kernel
from equivbench.kernels.backends.plain_so2 import so2_kernel
from equivbench.kernels.backends.plain_steerable import steerable_kernel
from equivbench.kernels.grid_operations import CubeConvolution, SteerableConvolution
from equivbench.kernels.operations import (
    Convolution,
    EdgeProduct,
    Linear,
    NeighbourSearch,
    Operation,
    RadialBasis,
    SO2Convolution,
    SphericalHarmonics,
)


class PlainTorch:
    """Runs wherever torch does."""

    def missing(self, device: torch.device) -> str | None:
        """Never missing."""
        return None

    def build(self, operation: Operation, *, dtype: torch.dtype, device: torch.device) -> Kernel:
        """``operation`` in plain torch; raises ``UnsupportedError`` for one it does not know, such
        as a plug-in's."""
        return _build(operation, dtype=dtype, device=device)


@singledispatch
def _build(operation: Operation, *, dtype: torch.dtype, device: torch.device) -> Kernel:
    raise UnsupportedError(
        f"backend 'torch' does not do {operation.name!r}; choose another backend with --backend"
    )


_build.register(Convolution, convolution)
_build.register(SphericalHarmonics, irreps.harmonics_kernel)
_build.register(Linear, irreps.linear_kernel)
_build.register(RadialBasis, irreps.radial_kernel)
_build.register(NeighbourSearch, neighbour_kernel)
_build.register(EdgeProduct, irreps.edge_product_kernel)
_build.register(SO2Convolution, so2_kernel)
_build.register(PairBiasAttention, attention.pair_bias_kernel)
_build.register(InvariantPointAttention, attention.point_kernel)
_build.register(SteerableConvolution, steerable_kernel)
_build.register(CubeConvolution, cube_kernel)
