"""The mirror image x -> -x of tensors that declare a symmetry type: what tells O(3) from SO(3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from equivbench.errors import UsageError
from equivbench.symmetry.types import Declared, SymmetryType

_GRID_AXES = (2, 3, 4)


def parities(text: str) -> tuple[int, ...]:
    """The sign, +1 (``e``) or -1 (``o``), of every component of a type as
    :meth:`SymmetryType.parse` reads it, under x -> -x."""
    inner = (
        text.strip().removeprefix("voxel(").removesuffix(")")
        if SymmetryType.parse(text).voxel
        else text
    )
    terms = [term.strip() for term in inner.split("+")]
    return tuple(
        sign
        for term in terms
        for sign in SymmetryType.parse(term).dim * (-1 if term.endswith("o") else 1,)
    )


def mirror(tensors: Mapping[str, Tensor], fields: Iterable[Declared]) -> dict[str, Tensor]:
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
    for field in fields:
        if field.name not in tensors:
            continue
        symmetry, signs = SymmetryType.parse(field.symmetry), parities(field.symmetry)
        tensor = tensors[field.name]
        if symmetry.voxel:
            tensor = tensor.flip(_GRID_AXES)
        if -1 in signs:
            axis = 1 if symmetry.voxel else -1
            # A tensor of one kind of sign needs no axis of components: [samples] of type 0o has
            # none.
            if 1 in signs and tensor.shape[axis] != len(signs):
                raise UsageError(
                    f"field {field.name!r} declared {field.symmetry!r} has shape "
                    f"{tuple(tensor.shape)}"
                )
            if 1 in signs:
                shape = [
                    len(signs) if position == axis % tensor.dim() else 1
                    for position in range(tensor.dim())
                ]
                tensor = tensor * tensor.new_tensor(signs).reshape(shape)
            else:
                tensor = -tensor
        mirrored[field.name] = tensor
    return mirrored
