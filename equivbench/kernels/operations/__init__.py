"""The equivariant operations that networks are made of, one file each, and the named cases of all
of them, which `equivbench kernels`, asv, pytest-benchmark and the gate draw on. Imports no torch.

An operation is a pure function of named tensors; its file states it, draws its inputs, evaluates it
exactly and counts its cost. To add one, write such a file and name it in ``_FILES``.
"""

from __future__ import annotations

from importlib import import_module

from equivbench.errors import unknown_name
from equivbench.kernels.operations.base import Case, Costs, Operation, costs
from equivbench.kernels.operations.convolution import Convolution
from equivbench.kernels.operations.cube_convolution import CubeConvolution
from equivbench.kernels.operations.edge_product import EdgeProduct
from equivbench.kernels.operations.linear import Linear
from equivbench.kernels.operations.neighbour_search import NeighbourSearch
from equivbench.kernels.operations.painn_message import PaiNNMessage
from equivbench.kernels.operations.pair_bias_attention import PairBiasAttention
from equivbench.kernels.operations.paths import Path
from equivbench.kernels.operations.point_attention import InvariantPointAttention
from equivbench.kernels.operations.radial_basis import RadialBasis
from equivbench.kernels.operations.so2_convolution import SO2Convolution
from equivbench.kernels.operations.so2_message import SO2Message
from equivbench.kernels.operations.spherical_harmonics import SphericalHarmonics
from equivbench.kernels.operations.steerable_convolution import SteerableConvolution
from equivbench.kernels.operations.symmetric_contraction import SymmetricContraction

__all__ = [
    "CASES",
    "Case",
    "Convolution",
    "Costs",
    "CubeConvolution",
    "EdgeProduct",
    "InvariantPointAttention",
    "Linear",
    "NeighbourSearch",
    "Operation",
    "PaiNNMessage",
    "PairBiasAttention",
    "Path",
    "RadialBasis",
    "SO2Convolution",
    "SO2Message",
    "SphericalHarmonics",
    "SteerableConvolution",
    "SymmetricContraction",
    "case",
    "costs",
]

_FILES = (
    "convolution",
    "painn_message",
    "spherical_harmonics",
    "linear",
    "radial_basis",
    "neighbour_search",
    "edge_product",
    "symmetric_contraction",
    "so2_convolution",
    "so2_message",
    "pair_bias_attention",
    "point_attention",
    "steerable_convolution",
    "cube_convolution",
)

CASES: tuple[Case, ...] = tuple(
    one for name in _FILES for one in import_module(f"{__name__}.{name}").CASES
)
"""All cases, in the order in which they are shown."""


def case(name: str) -> Case:
    """The case called ``name``; raises ``UsageError`` with the close matches."""
    for one in CASES:
        if one.name == name:
            return one
    raise unknown_name("kernel case", name, [one.name for one in CASES])
