"""Symmetry types in e3nn's notation, and the rotation of tensors that declare one: nothing else
writes rotation code."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from equivbench.errors import UsageError
from equivbench.specs import Field
from equivbench.symmetry.grids import rotate_grid

_IRREP = re.compile(r"(?:(\d+)x)?(\d+)([eo])")
_VOXEL = re.compile(r"voxel\((.*)\)")
SYMMETRIC = "ij=ji"
"""e3nn's notation for a symmetric matrix [..., 3, 3] that acts between vectors, such as a stress: S
becomes R S R^T. It is ``0e + 2e``."""


@dataclass(frozen=True)
class SymmetryType:
    """A direct sum of irreps over the last axis, or over the channel axis of a voxel grid, or of a
    symmetric matrix over the last two axes.

    ``irreps`` lists (multiplicity, degree l), without parity, which rotations do not see.
    """

    irreps: tuple[tuple[int, int], ...]
    voxel: bool = False
    parities: tuple[int, ...] = field(default=(), compare=False)
    """The sign, +1 (``e``) or -1 (``o``), of every component under x -> -x."""
    cartesian: bool = False
    """Whether it is a symmetric matrix, whose irreps :meth:`components` gives."""

    @staticmethod
    @functools.cache
    def parse(text: str) -> SymmetryType:
        """Read ``"1o + 2x0e"``, ``"voxel(4x0e)"`` or ``"ij=ji"``; raises ``UsageError`` on anything
        else."""
        if text.strip() == SYMMETRIC:
            return SymmetryType(((1, 0), (1, 2)), parities=(1,) * 6, cartesian=True)
        inner = _VOXEL.fullmatch(text.strip())
        terms = [term.strip() for term in (inner.group(1) if inner else text).split("+")]
        matches = [_IRREP.fullmatch(term) for term in terms]
        if not all(matches):
            raise UsageError(
                f"symmetry type {text!r} cannot be read; write e3nn irreps such as '1o + 2x0e', "
                "'ij=ji' for a symmetric matrix, or 'voxel(4x0e)'"
            )
        found = [match.groups() for match in matches if match]
        irreps = tuple((int(copies or 1), int(degree)) for copies, degree, _ in found)
        signs = [
            -1 if parity == "o" else 1
            for (copies, degree), (*_, parity) in zip(irreps, found, strict=True)
            for _ in range(copies * (2 * degree + 1))
        ]
        return SymmetryType(irreps, inner is not None, tuple(signs))

    @property
    def dim(self) -> int:
        """Number of components."""
        return sum(multiplicity * (2 * degree + 1) for multiplicity, degree in self.irreps)

    @property
    def invariant(self) -> bool:
        """Whether a rotation leaves every component where it is."""
        return not self.voxel and all(degree == 0 for _, degree in self.irreps)

    def act(self, tensor: Tensor, rotations: Tensor) -> Tensor:
        """The rotated tensor, computed in float64 and returned in the tensor's dtype.

        Parameters
        ----------
        tensor
            [rows, ..., dim], or [rows, dim, x, y, z] for a voxel grid, or [rows, ..., 3, 3] for a
            symmetric matrix.
        rotations
            [rows, 3, 3], or [1, 3, 3] for one rotation of all rows.
        """
        if self.invariant:
            return tensor
        if not tensor.is_floating_point():
            raise UsageError(
                f"a tensor of {tensor.dtype} cannot be rotated; declare it invariant ('0e')"
            )
        if self.cartesian:
            matrices = self._matrices(tensor).double()
            turns = rotations.double().reshape(-1, *(1,) * (tensor.dim() - 3), 3, 3)
            return (turns @ matrices @ turns.mT).to(tensor.dtype)
        axis = 1 if self.voxel else -1
        if tensor.dim() != 5 if self.voxel else tensor.dim() < 2:
            raise UsageError(
                f"a tensor of shape {tuple(tensor.shape)} does not have the axes of its symmetry "
                "type"
            )
        if tensor.shape[axis] != self.dim:
            raise UsageError(
                f"its symmetry type has {self.dim} components but the tensor has shape "
                f"{tuple(tensor.shape)}"
            )
        values, rotations = tensor.double(), rotations.double()
        if not self.voxel:
            return self._mix(values, rotations).to(tensor.dtype)
        moved = rotate_grid(values, rotations.expand(len(values), 3, 3))
        return self._mix(moved.movedim(1, -1), rotations).movedim(-1, 1).to(tensor.dtype)

    def components(self, tensor: Tensor) -> Tensor:
        """``tensor`` itself, or [..., 6] of a symmetric matrix [..., 3, 3]: its irreps ``0e + 2e``
        in e3nn's basis, with the norm of the matrix. Of another matrix it is the symmetric part."""
        if not self.cartesian:
            return tensor
        matrices = self._matrices(tensor)
        matrices = (matrices + matrices.mT) / 2
        (xx, xy, xz), (_, yy, yz), (*_, zz) = (row.unbind(-1) for row in matrices.unbind(-2))
        return torch.stack(
            [
                (xx + yy + zz) / 3**0.5,
                xz * 2**0.5,
                xy * 2**0.5,
                (2 * yy - xx - zz) / 6**0.5,
                yz * 2**0.5,
                (zz - xx) / 2**0.5,
            ],
            dim=-1,
        )

    def _matrices(self, tensor: Tensor) -> Tensor:
        if tensor.dim() < 3 or tensor.shape[-2:] != (3, 3):
            raise UsageError(
                f"its symmetry type is a matrix of 3 by 3 but the tensor has shape "
                f"{tuple(tensor.shape)}"
            )
        return tensor

    def _mix(self, values: Tensor, rotations: Tensor) -> Tensor:
        """[rows, ..., dim] with every irrep multiplied by its representation matrix."""
        blocks = []
        sizes = [multiplicity * (2 * degree + 1) for multiplicity, degree in self.irreps]
        for block, (_, degree) in zip(torch.split(values, sizes, dim=-1), self.irreps, strict=True):
            if degree == 0:
                blocks.append(block)
                continue
            # [rows, copies, 2l+1] @ D^T: one batched product whatever axes lie between.
            copies = block.reshape(len(block), -1, 2 * degree + 1)
            blocks.append(
                (copies @ representation(degree, rotations).transpose(1, 2)).reshape(block.shape)
            )
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=-1)


def representation(
    degree: int, rotations: Float[Tensor, "n 3 3"]
) -> Float[Tensor, "n {2*degree+1} {2*degree+1}"]:
    """[n, 2l+1, 2l+1] real matrices D of degree l in e3nn's basis, where 1o is (x, y, z) and D is
    the rotation itself.

    For l >= 2 from Y(R x) = D(R) Y(x) at fixed points, solved by least squares: unlike Euler angles
    it has no poles, so D is good to rounding for every rotation.
    """
    if degree == 0:
        return rotations.new_ones(len(rotations), 1, 1)
    if degree == 1:
        return rotations
    from e3nn import o3

    points = torch.randn(
        4 * degree + 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    points = torch.nn.functional.normalize(points, dim=1).to(rotations.device)
    harmonics: Tensor = o3.spherical_harmonics(degree, points, normalize=False)
    rotated: Tensor = o3.spherical_harmonics(
        degree, points @ rotations.double().transpose(1, 2), normalize=False
    )
    matrices: Tensor = torch.linalg.pinv(harmonics) @ rotated
    return matrices.transpose(1, 2).to(rotations.dtype)


def rotate(
    tensors: Mapping[str, Tensor],
    fields: Iterable[Field],
    rotations: Tensor,
    index: Tensor | None,
) -> dict[str, Tensor]:
    """A copy of ``tensors`` in which every tensor of a declared non-invariant type is rotated with
    its sample.

    Parameters
    ----------
    tensors
        A batch, or a model's outputs; tensors without a field, or of an invariant type, pass
        through.
    fields
        The declarations, found by name.
    rotations
        [graphs, 3, 3], or [1, 3, 3] for one rotation of all samples; the inverse action is that of
        the transposes.
    index
        [nodes] int64, the sample of each node; None where no field is per node, or for one rotation
        of all.

    Raises
    ------
    UsageError
        If a tensor does not fit its declared type, named in the message.
    """
    rotated = dict(tensors)
    rows: Tensor | None = None
    for each in fields:
        if each.name not in tensors:
            continue
        symmetry = SymmetryType.parse(each.symmetry)
        if symmetry.invariant:
            continue
        if each.per == "graph" or len(rotations) == 1:
            matrices = rotations
        elif each.per == "node" and index is not None:
            rows = rotations[index] if rows is None else rows
            matrices = rows
        else:
            raise UsageError(
                f"field {each.name!r} of type {each.symmetry} is per {each.per} and no index "
                "says whose rows are whose"
            )
        try:
            rotated[each.name] = symmetry.act(tensors[each.name], matrices)
        except UsageError as error:
            raise UsageError(f"field {each.name!r} declared {each.symmetry!r}: {error}") from None
    return rotated


def mirror(tensors: Mapping[str, Tensor], fields: Iterable[Field]) -> dict[str, Tensor]:
    """A copy of ``tensors`` in which every tensor of a declared type is that of the mirror image.

    Components of odd parity change sign; a voxel grid is also turned inside out about its centre.
    Exact: no value is rounded. Mirroring twice gives back what was there. Tensors without a field
    pass through.

    Raises
    ------
    UsageError
        If a tensor does not fit its declared type, named in the message.
    """
    mirrored = dict(tensors)
    for each in fields:
        if each.name not in tensors:
            continue
        symmetry, tensor = SymmetryType.parse(each.symmetry), tensors[each.name]
        if symmetry.voxel:
            tensor = tensor.flip(2, 3, 4)
        signs, axis = symmetry.parities, 1 if symmetry.voxel else -1
        if set(signs) == {-1}:
            # No axis of components is needed: [samples] of type 0o has none.
            tensor = -tensor
        elif -1 in signs:
            if tensor.shape[axis] != len(signs):
                raise UsageError(
                    f"field {each.name!r} declared {each.symmetry!r} has shape "
                    f"{tuple(tensor.shape)}"
                )
            tensor = (tensor.movedim(axis, -1) * tensor.new_tensor(signs)).movedim(-1, axis)
        mirrored[each.name] = tensor
    return mirrored


def transform(
    tensors: Mapping[str, Tensor],
    fields: Iterable[Field],
    matrices: Tensor,
    index: Tensor | None,
) -> dict[str, Tensor]:
    """``tensors`` under orthogonal ``matrices``: :func:`rotate` for those of determinant 1; one of
    determinant -1 is minus a rotation, and gives the mirror image of what the rotation gives.

    Parameters and errors are those of :func:`rotate`, with ``matrices`` for its rotations.
    """
    improper = torch.linalg.det(matrices) < 0
    if not bool(improper.any()):
        return rotate(tensors, fields, matrices, index)
    declared = list(fields)
    turned = rotate(tensors, declared, matrices.where(~improper[:, None, None], -matrices), index)
    mirrored = mirror(turned, declared)
    if bool(improper.all()):
        return mirrored
    per = {each.name: each.per for each in declared}
    for name, image in mirrored.items():
        if image is not turned[name]:
            rows = improper[index] if per[name] == "node" and index is not None else improper
            rows = rows.reshape(-1, *(1,) * (image.dim() - 1))
            turned[name] = image.where(rows, turned[name])
    return turned
