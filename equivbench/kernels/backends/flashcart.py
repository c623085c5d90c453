"""The ``flashcart`` backend: products of Cartesian tensors in Triton (Zaverkin et al. 2026,
2610.06409).

It stores a degree as the independent components of a symmetric traceless tensor: another basis of
the same space, to which a fixed matrix leads, and its paths differ from e3nn's by one factor each.
Both are measured on its plain torch functions, which give the same numbers as its kernels. Written
for version 0.1.0; the kernels have never been run here, where there is no CUDA device.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch
from e3nn import o3
from torch import Tensor

from equivbench.kernels.backend import Kernel, TableBackend, Tensors, UnsupportedError
from equivbench.kernels.operations import Convolution, Path
from equivbench.kernels.operations.paths import coupling


def convolution(operation: Convolution, like: Tensor) -> Kernel:
    """By its Triton kernels; raises ``UnsupportedError`` for channels, paths and degrees that they
    do not have."""
    if len(set(operation.channels)) > 1 or not operation.parity:
        raise UnsupportedError(
            "flashcart has only equal channels in each degree and only the paths of natural parity"
        )
    most = importlib.import_module("flashcart.o3.kernel_config").kernel_l_max()
    if max(len(operation.channels) - 1, operation.edge_lmax, operation.target_lmax) > most:
        raise UnsupportedError(
            f"flashcart has kernels up to degree {most};"
            " set FLASHCART_KERNEL_L_MAX before it is imported"
        )
    return cartesian_kernel(operation, like)


def cartesian_kernel(operation: Convolution, like: Tensor) -> Kernel:
    """The convolution by flashcart: Triton on CUDA, plain torch on a CPU, which serves the tests
    only."""
    product = _product(operation, operation.channels[0], use_triton=like.is_cuda)
    order = path_order(operation)
    bases = [
        basis(degree)
        for degree in range(
            max(len(operation.channels), operation.edge_lmax + 1, operation.target_lmax + 1)
        )
    ]
    scales = _scales(operation, order, bases)
    to_cartesian = [one.to(like) for one in bases]
    to_spherical = [torch.linalg.inv(one).to(like) for one in bases]
    places = [operation.paths.index(path) for path in order]
    # The factor of a path goes into its weights.
    factors = like.new_tensor([1 / scales[path] for path in order]).unsqueeze(1)

    def adapt(inputs: Tensors) -> Tensors:
        weights = torch.unflatten(inputs["weights"], 1, (len(places), -1))[:, places] * factors
        harmonics = inputs["harmonics"].unsqueeze(2)
        return {
            "x": _changed(
                torch.unflatten(inputs["x"], 1, (-1, operation.channels[0])), to_cartesian
            ).flatten(1),
            "harmonics": _changed(harmonics, to_cartesian).flatten(1),
            "weights": weights.flatten(1),
            "edge_index": inputs["edge_index"],
        }

    def run(inputs: Tensors) -> Tensor:
        neighbours, centres = inputs["edge_index"]
        output: Tensor = product(
            inputs["x"], inputs["harmonics"], inputs["weights"], centres, neighbours
        )
        return output

    def restore(output: Tensor) -> Tensor:
        blocks = _target_blocks(operation, order, output, operation.channels[0])
        spherical = {
            path: torch.einsum("cs,ncu->nsu", to_spherical[path.target], block)
            for path, block in blocks.items()
        }
        return torch.cat([spherical[path].flatten(1) for path in operation.paths], dim=1)

    method = f"flashcart {version('flashcart')} {'triton' if like.is_cuda else 'plain torch'}"
    return Kernel(run, method, adapt, restore, compiles=like.is_cuda)


def path_order(operation: Convolution) -> list[Path]:
    """The paths as flashcart orders them: by target; those whose source has the higher degree
    first."""
    return sorted(
        operation.paths,
        key=lambda path: (
            path.target,
            path.source < path.edge,
            max(path.source, path.edge),
            min(path.source, path.edge),
        ),
    )


def basis(degree: int) -> Tensor:
    """[2 l + 1 spherical, 2 l + 1 stored Cartesian components] float64: what takes e3nn's harmonics
    to flashcart's."""
    expand = importlib.import_module("flashcart.o3._irreps").py_irreps
    directions = torch.randn(64, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = torch.nn.functional.normalize(directions, dim=1)
    harmonics = o3.spherical_harmonics(degree, unit, normalize=False, normalization="component")
    stored = expand(unit, degree)[:, degree**2 : (degree + 1) ** 2]
    # 64 directions for at most a few unknowns a column: an exact fit, of which the tests see the
    # residual.
    solution: Tensor = torch.linalg.lstsq(harmonics, stored).solution
    return solution


def _product(operation: Convolution, channels: int, *, use_triton: bool) -> Any:
    library = importlib.import_module("flashcart.o3.tensor_product")
    return library.TensorProduct(
        len(operation.channels) - 1,
        operation.edge_lmax,
        operation.target_lmax,
        channels,
        1,
        use_triton=use_triton,
    )


def _scales(
    operation: Convolution, order: Sequence[Path], bases: Sequence[Tensor]
) -> dict[Path, float]:
    """flashcart's product over e3nn's, for each path."""
    generator = torch.Generator().manual_seed(0)
    x, harmonics = (
        torch.randn(16, rows**2, 1, generator=generator, dtype=torch.float64)
        for rows in (len(operation.channels), operation.edge_lmax + 1)
    )
    ones = torch.ones(16, len(order), dtype=torch.float64)
    product = _product(operation, 1, use_triton=False)
    output = product(_changed(x, bases).flatten(1), _changed(harmonics, bases).flatten(1), ones)
    scales = {}
    for path, theirs in _target_blocks(operation, order, output, 1).items():
        factors = (
            x[:, path.source**2 : (path.source + 1) ** 2],
            harmonics[:, path.edge**2 : (path.edge + 1) ** 2],
        )
        ours = torch.einsum("tse,nsu,neu,tc->ncu", coupling(path), *factors, bases[path.target])
        scales[path] = float((theirs * ours).sum() / (ours * ours).sum())
    return scales


def _changed(features: Tensor, bases: Sequence[Tensor]) -> Tensor:
    """[rows, components, channels] with the components of each degree in another basis."""
    heights = [
        2 * degree + 1 for degree in range(len(bases)) if (degree + 1) ** 2 <= features.shape[1]
    ]
    parts = torch.split(features, heights, dim=1)
    return torch.cat(
        [torch.einsum("sc,nsu->ncu", one, part) for one, part in zip(bases, parts, strict=False)],
        dim=1,
    )


def _target_blocks(
    operation: Convolution, order: Sequence[Path], output: Tensor, channels: int
) -> dict[Path, Tensor]:
    """[rows, 2 l + 1, channels] of each path, from [rows, per target degree: 2 l + 1, paths,
    channels]."""
    blocks: dict[Path, Tensor] = {}
    start = 0
    for degree in range(operation.target_lmax + 1):
        paths = [path for path in order if path.target == degree]
        size = (2 * degree + 1) * len(paths) * channels
        block = torch.unflatten(
            output[:, start : start + size], 1, (2 * degree + 1, len(paths), channels)
        )
        blocks.update(zip(paths, block.unbind(2), strict=True))
        start += size
    return blocks


class Flashcart(TableBackend):
    """Convolutions with as many channels in each degree and the paths of natural parity."""

    name = "flashcart"
    kernels = ((Convolution, convolution),)

    def missing(self, device: torch.device) -> str | None:
        """The package, Triton or a CUDA device, without which it runs plain torch."""
        if (reason := super().missing(device)) is not None:
            return reason
        if not torch.cuda.is_available() or importlib.util.find_spec("triton") is None:
            return "flashcart's kernels need Triton and a CUDA device"
        return None
