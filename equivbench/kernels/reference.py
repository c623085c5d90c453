"""Float64 references of every operation: plain dense torch, independent of all backends,
differentiable as often as cases say."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, singledispatch

from torch import Tensor

from equivbench.errors import UsageError
from equivbench.kernels.attention_operations import InvariantPointAttention, PairBiasAttention
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
from equivbench.kernels.references import attention, grids, irreps
from equivbench.kernels.references.convolution import convolution

Reference = Callable[..., Tensor]


@singledispatch
def reference(operation: Operation) -> Reference:
    """A function of the operation's named inputs, for float64; ``reference.register`` adds an
    operation."""
    raise UsageError(
        f"kernel operation {operation.name!r} has no reference; register a function with equivbench.kernels.reference.reference"
    )


reference.register(Convolution, convolution)

_FUNCTIONS: dict[type[Operation], Reference] = {
    SphericalHarmonics: irreps.spherical_harmonics,
    Linear: irreps.linear,
    RadialBasis: irreps.radial_basis,
    NeighbourSearch: irreps.neighbour_search,
    EdgeProduct: irreps.edge_product,
    SO2Convolution: irreps.so2_convolution,
    PairBiasAttention: attention.pair_bias_attention,
    InvariantPointAttention: attention.invariant_point_attention,
    SteerableConvolution: grids.steerable_convolution,
    CubeConvolution: grids.cube_convolution,
}


def _of_inputs(operation: Operation) -> Reference:
    return partial(_FUNCTIONS[type(operation)], operation)


for _kind in _FUNCTIONS:
    reference.register(_kind, _of_inputs)
