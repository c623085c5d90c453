"""The ``e3nn`` and ``e3nn-compiled`` backends: e3nn's operations as its users run them, eager or
through torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import ClassVar

import torch
from e3nn import get_optimization_defaults, o3
from e3nn.nn.models.v2104.voxel_convolution import Convolution as VoxelConvolution
from torch import Tensor

from equivbench.environment import cxx_compiler
from equivbench.kernels.backend import Kernel, TableBackend, Tensors
from equivbench.kernels.backends.plain.irreps import harmonics_kernel
from equivbench.kernels.backends.plain.so2 import kernel_with
from equivbench.kernels.operations import (
    Convolution,
    EdgeProduct,
    Linear,
    Operation,
    SO2Convolution,
    SphericalHarmonics,
    SteerableConvolution,
    SymmetricContraction,
)
from equivbench.kernels.operations.contraction_paths import contraction_coefficients
from equivbench.kernels.operations.edge_frames import frame_rows
from equivbench.kernels.sums import sum_by

Blocks = Sequence[tuple[int, int]]
"""(channels, 2 l + 1) of each block of features."""


def _irreps(channels: Sequence[int], sign: int = 1) -> o3.Irreps:
    """Degrees 0, 1, ... with so many ``channels`` and the parities ``sign`` ** l."""
    return o3.Irreps([(count, (degree, sign**degree)) for degree, count in enumerate(channels)])


def _blocks(irreps: o3.Irreps) -> Blocks:
    return [(count, irrep.dim) for count, irrep in irreps]


def _turned(features: Tensor, shapes: Blocks) -> Tensor:
    """[rows, features, ...] with each block turned from [first, second] of its shape into [second,
    first]."""
    parts = torch.split(features, [first * second for first, second in shapes], dim=1)
    turned = [
        torch.unflatten(part, 1, shape).transpose(1, 2).flatten(1, 2)
        for part, shape in zip(parts, shapes, strict=True)
    ]
    return torch.cat(turned, dim=1)


def _kernel(
    run: Callable[[Tensors], Tensor],
    source: o3.Irreps,
    target: o3.Irreps,
    factors: Sequence[tuple[int, float]] = (),
) -> Kernel:
    """``run`` in e3nn's layout, channels outermost in each block where the stated one has them
    innermost; so many weights, one after the other, are multiplied by a factor."""

    def adapt(inputs: Tensors) -> Tensors:
        shapes = [(height, channels) for channels, height in _blocks(source)]
        changed = {"x": _turned(inputs["x"], shapes)}
        if factors:
            parts = torch.split(inputs["weights"], [size for size, _ in factors], dim=-1)
            scaled = [part * factor for part, (_, factor) in zip(parts, factors, strict=True)]
            changed["weights"] = torch.cat(scaled, dim=-1)
        return {**inputs, **changed}

    return Kernel(run, _method(), adapt, lambda output: _turned(output, _blocks(target)))


def _method() -> str:
    """The mode that e3nn itself chooses for this torch is ``script`` or ``eager``."""
    return f"e3nn {version('e3nn')} {get_optimization_defaults()['jit_mode']}"


def convolution(operation: Convolution, like: Tensor) -> Kernel:
    """o3.TensorProduct on gathered features and a sum at the centres, as NequIP and MACE do without
    their own kernels."""
    # Parity is in the choice of the paths already.
    source = _irreps(operation.channels)
    target = o3.Irreps([(operation.channels[p.source], (p.target, 1)) for p in operation.paths])
    product = o3.TensorProduct(
        source,
        _irreps([1] * (operation.edge_lmax + 1)),
        target,
        [(path.source, path.edge, n, "uvu", True) for n, path in enumerate(operation.paths)],
        shared_weights=False,
        internal_weights=False,
        path_normalization="element",
    ).to(like)

    def run(inputs: Tensors) -> Tensor:
        x, edge_index = inputs["x"], inputs["edge_index"]
        messages = product(x.index_select(0, edge_index[0]), inputs["harmonics"], inputs["weights"])
        return sum_by(edge_index[1], messages, x.shape[0])

    return _kernel(run, source, target)


def edge_product(operation: EdgeProduct, like: Tensor) -> Kernel:
    """o3.TensorProduct, channel by channel, of each edge and the sum around its centre, as Allegro
    does without its own kernels."""
    channels, degrees = operation.channels, range(operation.lmax + 1)
    # Parity is in the choice of the paths already.
    features = _irreps([channels] * len(degrees))
    product = o3.TensorProduct(
        features,
        features,
        features,
        [(path.source, path.edge, path.target, "uuu", True) for path in operation.paths],
        shared_weights=True,
        internal_weights=False,
        path_normalization="none",
    ).to(like)

    def run(inputs: Tensors) -> Tensor:
        by_degree = torch.split(inputs["environment"], channels, dim=1)
        harmonics = torch.split(inputs["harmonics"], [2 * degree + 1 for degree in degrees], dim=1)
        weighted = torch.cat(
            [
                (scales[:, :, None] * of_degree[:, None]).flatten(1)
                for scales, of_degree in zip(by_degree, harmonics, strict=True)
            ],
            dim=1,
        )
        centres, place = torch.unique(inputs["edge_index"][1], return_inverse=True)
        sums = sum_by(place, weighted, len(centres))
        out: Tensor = product(inputs["x"], sums.index_select(0, place), inputs["weights"].flatten())
        return out

    return _kernel(run, features, features)


def harmonics(operation: SphericalHarmonics, like: Tensor) -> Kernel:
    """The polynomials that are the torch backend's too."""
    return replace(harmonics_kernel(operation, like), method=_method())


def linear(operation: Linear, like: Tensor) -> Kernel:
    """o3.Linear with given weights, which it divides by the root of the number of inputs."""
    source, target = _irreps(operation.inputs), _irreps(operation.outputs)
    layer = o3.Linear(source, target, internal_weights=False, shared_weights=True).to(like)

    def run(inputs: Tensors) -> Tensor:
        out: Tensor = layer(inputs["x"], inputs["weights"])
        return out

    roots = [count**0.5 for count in operation.inputs]
    return _kernel(run, source, target, list(zip(operation.weight_sizes, roots, strict=True)))


def steerable_convolution(operation: SteerableConvolution, like: Tensor) -> Kernel:
    """The kernel of e3nn's voxel convolution, without its linear map of the voxel itself."""
    source, target = _irreps(operation.inputs, -1), _irreps(operation.outputs, -1)
    edge = o3.Irreps.spherical_harmonics(operation.edge_lmax)
    layer = VoxelConvolution(source, target, edge, operation.diameter, operation.radial).to(like)
    product, radial, angular = layer.tp, layer.emb, layer.sh
    # e3nn divides by the voxels of the kernel and by the root of what comes together in an output;
    # paths are in our order.
    together = [
        sum(operation.inputs[one.source] for one in operation.paths if one.target == path.target)
        for path in operation.paths
    ]

    def run(inputs: Tensors) -> Tensor:
        kernel = product.right(angular, radial @ inputs["weights"])
        return torch.nn.functional.conv3d(
            inputs["x"], kernel.permute(4, 3, 0, 1, 2), padding=operation.reach
        )

    roots = [count**0.5 for count in together]
    return _kernel(run, source, target, list(zip(operation.weight_sizes, roots, strict=True)))


def symmetric_contraction(operation: SymmetricContraction, like: Tensor) -> Kernel:
    """MACE's: dense coefficients of e3nn's couplings. The highest power is contracted with weights
    and one factor; the next one is added and another factor put in, until none is out.

    In MACE's layout: ``x`` [nodes, C, rows], ``weights`` [elements, paths, C].
    """
    channels, rows = operation.channels, (operation.lmax + 1) ** 2
    highest = operation.correlation
    dense: dict[tuple[int, int], list[Tensor]] = {}
    for path in operation.paths:
        one = contraction_coefficients(path, operation.lmax).to(like)
        dense.setdefault((path.target, len(path.degrees)), []).append(one)
    # [2 l + 1, rows, ..., rows, paths]; paths of the same target and power follow each other.
    stacked = {key: torch.stack(found, dim=-1) for key, found in dense.items()}
    sizes = [found.shape[-1] for found in stacked.values()]

    def contracted(target: int, x: Tensor, weights: dict[tuple[int, int], Tensor]) -> Tensor:
        top = stacked[target, highest]
        # As matrices: all that stays, by the factor that is put in and the path.
        factors = torch.einsum("nkc,nci->ncik", weights[target, highest], x).flatten(2)
        out = torch.unflatten(factors @ top.flatten(-2).flatten(0, -2).T, 2, top.shape[:-2])
        for power in range(highest - 1, 0, -1):
            if (target, power) in stacked:
                lower = stacked[target, power]
                added = weights[target, power].mT @ lower.flatten(0, -2).T
                out = out + torch.unflatten(added, 2, lower.shape[:-1])
            shape = (*x.shape[:2], *[1] * (out.ndim - 3), rows)
            out = (out * x.reshape(shape)).sum(-1)
        return out

    def run(inputs: Tensors) -> Tensor:
        of_nodes = inputs["weights"].index_select(0, inputs["elements"])
        parts = torch.split(of_nodes, sizes, dim=1)
        weights = dict(zip(stacked, parts, strict=True))
        targets = range(operation.target_lmax + 1)
        return torch.cat([contracted(one, inputs["x"], weights) for one in targets], dim=2)

    def adapt(inputs: Tensors) -> Tensors:
        x = torch.unflatten(inputs["x"], 1, (rows, channels)).mT.contiguous()
        return {**inputs, "x": x, "weights": torch.unflatten(inputs["weights"], 1, (-1, channels))}

    def restore(output: Tensor) -> Tensor:
        return output.mT.flatten(1)

    return Kernel(run, f"e3nn {version('e3nn')} einsum", adapt, restore)


def so2_convolution(operation: SO2Convolution, like: Tensor) -> Kernel:
    """Wigner matrices of whole degrees as o3.wigner_D makes them, exponentials of two angles'
    generators, and dense maps, for which e3nn has nothing of its own.

    The generators are kept: o3.wigner_D makes them anew in each call, on the CPU. In float32
    derivatives of single edges are off by up to 7e-5, second ones by 5e-4 (torch backend: 2e-6):
    there are none but in float64.
    """
    size = (operation.lmax + 1) ** 2
    generators = [o3.so3_generators(degree).to(like) for degree in range(operation.lmax + 1)]
    rows = [degree**2 + degree + m for degree, m in frame_rows(operation.lmax, operation.mmax)]
    kept = torch.tensor(rows, device=like.device)

    def wigner(vectors: Tensor) -> Tensor:
        first, second = o3.xyz_to_angles(vectors)
        blocks = []
        for degree, about in enumerate(generators):
            # The rotation that takes y to the vector, turned round.
            from_axis = torch.matrix_exp(first[:, None, None] * about[1]) @ torch.matrix_exp(
                second[:, None, None] * about[0]
            )
            place = (degree**2, size - (degree + 1) ** 2)
            blocks.append(torch.nn.functional.pad(from_axis.mT, place))
        return torch.cat(blocks, dim=1).index_select(1, kept)

    kernel = kernel_with(operation, wigner, like, _method())
    return replace(kernel, max_derivatives=2 if like.dtype == torch.float64 else 0)


@contextmanager
def _constants_of(dtype: torch.dtype) -> Iterator[None]:
    """e3nn rounds the coefficients of its modules to the default dtype of when they are made."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class E3nn(TableBackend):
    """Eager, in the mode that ``method`` says."""

    name = "e3nn"
    kernels: ClassVar[tuple[tuple[type[Operation], Callable[..., Kernel]], ...]] = (
        (Convolution, convolution),
        (EdgeProduct, edge_product),
        (SphericalHarmonics, harmonics),
        (Linear, linear),
        (SteerableConvolution, steerable_convolution),
        (SymmetricContraction, symmetric_contraction),
        (SO2Convolution, so2_convolution),
    )

    def build(self, operation: Operation, *, dtype: torch.dtype, device: torch.device) -> Kernel:
        """By the table, with coefficients in ``dtype``."""
        with _constants_of(dtype):
            return super().build(operation, dtype=dtype, device=device)


class E3nnCompiled(E3nn):
    """The same functions through ``torch.compile(fullgraph=True, dynamic=True)``, which has no
    second derivatives."""

    name = "e3nn-compiled"
    # Compiled exponentials take minutes to build and are no faster; how many centres there are is
    # read from numbers, which breaks a graph.
    kernels = tuple(each for each in E3nn.kernels if each[0] not in (SO2Convolution, EdgeProduct))

    def missing(self, device: torch.device) -> str | None:
        """A compiler is needed on a CPU."""
        if device.type == "cpu" and cxx_compiler() is None:
            return "torch.compile needs a C++ compiler on a CPU: install g++ or clang, or set CXX"
        return super().missing(device)

    def build(self, operation: Operation, *, dtype: torch.dtype, device: torch.device) -> Kernel:
        """Compiled in the first calls."""
        eager = super().build(operation, dtype=dtype, device=device)
        # AOTAutograd refuses a backward of the backward.
        return replace(
            eager,
            run=torch.compile(eager.run, fullgraph=True, dynamic=True),
            method=f"e3nn {version('e3nn')} inductor",
            compiles=True,
            max_derivatives=1,
        )
