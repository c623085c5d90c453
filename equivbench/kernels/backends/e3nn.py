"""The ``e3nn`` and ``e3nn-compiled`` backends: e3nn's operations as its users run them, eager or
through torch.compile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import singledispatch
from importlib.metadata import version

import torch
from e3nn import get_optimization_defaults, o3
from e3nn.nn.models.v2104.voxel_convolution import Convolution as VoxelConvolution
from torch import Tensor

from equivbench.environment import cxx_compiler
from equivbench.kernels.backend import Kernel, Tensors, UnsupportedError
from equivbench.kernels.operations import (
    Convolution,
    Linear,
    Operation,
    SphericalHarmonics,
    SteerableConvolution,
)

Blocks = Sequence[tuple[int, int]]
"""(channels, 2 l + 1) of each block of features."""


class E3nn:
    """Eager, in the mode that e3nn itself chooses for this torch (``script`` or ``eager``), which
    ``method`` says."""

    def missing(self, device: torch.device) -> str | None:
        """Never missing: the package needs e3nn."""
        return None

    def build(self, operation: Operation, *, dtype: torch.dtype, device: torch.device) -> Kernel:
        """``operation`` by e3nn; raises ``UnsupportedError`` for what it does not have."""
        with _constants_of(dtype):
            return _build(operation, dtype=dtype, device=device)


class E3nnCompiled:
    """The same functions through ``torch.compile(fullgraph=True, dynamic=True)``, which has no
    second derivatives."""

    def missing(self, device: torch.device) -> str | None:
        """A compiler is needed on a CPU."""
        if device.type == "cpu" and cxx_compiler() is None:
            return "torch.compile needs a C++ compiler on a CPU: install g++ or clang, or set CXX"
        return None

    def build(self, operation: Operation, *, dtype: torch.dtype, device: torch.device) -> Kernel:
        """``operation`` by e3nn, compiled in the first calls; raises ``UnsupportedError`` for what
        e3nn does not have."""
        eager = E3nn().build(operation, dtype=dtype, device=device)
        compiled = torch.compile(eager.run, fullgraph=True, dynamic=True)
        # AOTAutograd refuses a backward of the backward.
        return replace(
            eager,
            run=compiled,
            method=f"e3nn {version('e3nn')} inductor",
            compiles=True,
            max_derivatives=1,
        )


@contextmanager
def _constants_of(dtype: torch.dtype) -> Iterator[None]:
    """e3nn rounds the coefficients of its modules to the default dtype of when they are made."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@singledispatch
def _build(operation: Operation, *, dtype: torch.dtype, device: torch.device) -> Kernel:
    raise UnsupportedError(f"e3nn has no {operation.name!r}; choose another backend with --backend")


def _method() -> str:
    return f"e3nn {version('e3nn')} {get_optimization_defaults()['jit_mode']}"


@_build.register
def _convolution(operation: Convolution, *, dtype: torch.dtype, device: torch.device) -> Kernel:
    """o3.TensorProduct on gathered features and index_add, as NequIP and MACE do without their own
    kernels."""
    source = [(count, (degree, 1)) for degree, count in enumerate(operation.channels)]
    edge = [(1, (degree, 1)) for degree in range(operation.edge_lmax + 1)]
    target = [(operation.channels[path.source], (path.target, 1)) for path in operation.paths]
    product = o3.TensorProduct(
        o3.Irreps(source),
        o3.Irreps(edge),
        o3.Irreps(target),
        # Parity is in the choice of the paths already.
        [
            (path.source, path.edge, number, "uvu", True)
            for number, path in enumerate(operation.paths)
        ],
        shared_weights=False,
        internal_weights=False,
        path_normalization="element",
    ).to(dtype=dtype, device=device)
    source_blocks = degree_blocks(operation.channels)
    target_blocks = [
        (operation.channels[path.source], 2 * path.target + 1) for path in operation.paths
    ]

    def adapt(inputs: Tensors) -> Tensors:
        return {**inputs, "x": channels_outermost(inputs["x"], source_blocks)}

    def run(inputs: Tensors) -> Tensor:
        x, edge_index = inputs["x"], inputs["edge_index"]
        messages = product(x.index_select(0, edge_index[0]), inputs["harmonics"], inputs["weights"])
        return x.new_zeros((x.shape[0], messages.shape[1])).index_add(0, edge_index[1], messages)

    return Kernel(run, _method(), adapt, lambda output: channels_innermost(output, target_blocks))


@_build.register
def _spherical_harmonics(
    operation: SphericalHarmonics, *, dtype: torch.dtype, device: torch.device
) -> Kernel:
    degrees = list(range(operation.lmax + 1))

    def run(inputs: Tensors) -> Tensor:
        out: Tensor = o3.spherical_harmonics(
            degrees, inputs["vectors"], normalize=True, normalization="component"
        )
        return out

    return Kernel(run, _method())


@_build.register
def _linear(operation: Linear, *, dtype: torch.dtype, device: torch.device) -> Kernel:
    """o3.Linear with given weights, which it divides by the root of the number of inputs."""
    inputs_, outputs = (
        o3.Irreps([(count, (degree, 1)) for degree, count in enumerate(channels)])
        for channels in (operation.inputs, operation.outputs)
    )
    linear = o3.Linear(inputs_, outputs, internal_weights=False, shared_weights=True).to(
        dtype=dtype, device=device
    )
    pairs = [one * other for one, other in zip(operation.inputs, operation.outputs, strict=True)]
    source_blocks, target_blocks = degree_blocks(operation.inputs), degree_blocks(operation.outputs)

    def adapt(inputs: Tensors) -> Tensors:
        parts = torch.split(inputs["weights"], pairs)
        scaled = [part * count**0.5 for part, count in zip(parts, operation.inputs, strict=True)]
        return {"x": channels_outermost(inputs["x"], source_blocks), "weights": torch.cat(scaled)}

    def run(inputs: Tensors) -> Tensor:
        out: Tensor = linear(inputs["x"], inputs["weights"])
        return out

    return Kernel(run, _method(), adapt, lambda output: channels_innermost(output, target_blocks))


@_build.register
def _steerable_convolution(
    operation: SteerableConvolution, *, dtype: torch.dtype, device: torch.device
) -> Kernel:
    """The kernel of e3nn's voxel convolution, without its linear map of the voxel itself."""
    inputs_, outputs = (
        o3.Irreps([(count, (degree, (-1) ** degree)) for degree, count in enumerate(channels)])
        for channels in (operation.inputs, operation.outputs)
    )
    harmonics = o3.Irreps.spherical_harmonics(operation.edge_lmax)
    layer = VoxelConvolution(inputs_, outputs, harmonics, operation.diameter, operation.radial).to(
        dtype=dtype, device=device
    )
    product, radial, angular = layer.tp, layer.emb, layer.sh
    # e3nn divides by the voxels of the kernel and by the root of what comes together in an output;
    # paths are in our order.
    factors = []
    for path in operation.paths:
        together = sum(
            operation.inputs[other.source]
            for other in operation.paths
            if other.target == path.target
        )
        pairs = operation.inputs[path.source] * operation.outputs[path.target]
        factors.append(torch.full((pairs,), together**0.5, dtype=dtype, device=device))
    scale = torch.cat(factors)
    source_blocks, target_blocks = degree_blocks(operation.inputs), degree_blocks(operation.outputs)

    def adapt(inputs: Tensors) -> Tensors:
        return {
            "x": channels_outermost(inputs["x"], source_blocks),
            "weights": inputs["weights"] * scale,
        }

    def run(inputs: Tensors) -> Tensor:
        kernel = product.right(angular, radial @ inputs["weights"])
        return torch.nn.functional.conv3d(
            inputs["x"], kernel.permute(4, 3, 0, 1, 2), padding=operation.reach
        )

    return Kernel(run, _method(), adapt, lambda output: channels_innermost(output, target_blocks))


# e3nn keeps channels outermost in each block, the stated layout innermost.


def channels_outermost(features: Tensor, blocks: Blocks) -> Tensor:
    """[rows, features, ...] with each block turned from [2 l + 1, channels] into [channels, 2 l +
    1]."""
    return _turned(features, [(height, channels) for channels, height in blocks])


def channels_innermost(features: Tensor, blocks: Blocks) -> Tensor:
    """[rows, features, ...] with each block turned from [channels, 2 l + 1] into [2 l + 1,
    channels]."""
    return _turned(features, blocks)


def _turned(features: Tensor, shapes: Blocks) -> Tensor:
    parts = torch.split(features, [first * second for first, second in shapes], dim=1)
    turned = [
        torch.unflatten(part, 1, shape).transpose(1, 2).flatten(1, 2)
        for part, shape in zip(parts, shapes, strict=True)
    ]
    return torch.cat(turned, dim=1)


def degree_blocks(channels: Sequence[int]) -> Blocks:
    """Blocks of degrees 0, 1, ... with so many ``channels``."""
    return [(count, 2 * degree + 1) for degree, count in enumerate(channels)]
