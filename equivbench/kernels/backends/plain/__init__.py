"""The ``torch`` backend: every operation in plain torch, as our networks run it by default."""

from __future__ import annotations

from torch import Tensor

from equivbench.kernels.backend import Kernel, TableBackend
from equivbench.kernels.backends.plain import attention, grids, irreps, so2
from equivbench.kernels.backends.plain.convolution import convolution_kernel
from equivbench.kernels.backends.plain.painn_message import message_kernel
from equivbench.kernels.backends.plain.symmetric_contraction import contraction_kernel
from equivbench.kernels.neighbours import edges_within
from equivbench.kernels.operations import (
    Convolution,
    CubeConvolution,
    EdgeProduct,
    InvariantPointAttention,
    Linear,
    NeighbourSearch,
    PaiNNMessage,
    PairBiasAttention,
    RadialBasis,
    SO2Convolution,
    SO2Message,
    SphericalHarmonics,
    SteerableConvolution,
    SymmetricContraction,
)


def neighbour_kernel(operation: NeighbourSearch, like: Tensor) -> Kernel:
    """The data pipeline's neighbour search."""
    return Kernel(
        lambda inputs: edges_within(inputs["pos"], inputs["batch"], operation.cutoff),
        "torch masked pairs",
    )


class PlainTorch(TableBackend):
    """Runs wherever torch does."""

    name = "torch"
    kernels = (
        (Convolution, convolution_kernel),
        (PaiNNMessage, message_kernel),
        (SphericalHarmonics, irreps.harmonics_kernel),
        (Linear, irreps.linear_kernel),
        (RadialBasis, irreps.radial_kernel),
        (NeighbourSearch, neighbour_kernel),
        (EdgeProduct, irreps.edge_product_kernel),
        (SymmetricContraction, contraction_kernel),
        (SO2Convolution, so2.so2_kernel),
        (SO2Message, so2.message_kernel),
        (PairBiasAttention, attention.pair_bias_kernel),
        (InvariantPointAttention, attention.point_kernel),
        (SteerableConvolution, grids.steerable_kernel),
        (CubeConvolution, grids.cube_kernel),
    )
