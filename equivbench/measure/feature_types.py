"""The symmetry types that features inside a model may have: those that it declares, and those that
a tensor of some shape could be of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from equivbench.errors import UsageError
from equivbench.specs import Group
from equivbench.symmetry.types import SymmetryType

TYPES_ATTRIBUTE = "feature_types"
"""A model's own mapping from the path of a module to the symmetry type of what it returns."""
_MOST_DEGREE = 6
_VECTORS = ("1o", "1e")

Arrangement = Callable[[Tensor], Tensor]
"""Brings a feature into the order of axes that its type is written for."""


def declared_types(model: nn.Module) -> dict[str, str]:
    """The symmetry types that ``model`` tells of its features in its mapping ``feature_types``, by
    the path of the module.

    Raises ``UsageError`` for one that names no module of it, or cannot be read.
    """
    own = getattr(model, TYPES_ATTRIBUTE, {})
    if not isinstance(own, Mapping):
        raise UsageError(f"{TYPES_ATTRIBUTE} of {type(model).__name__} must be a mapping")
    paths = dict(model.named_modules())
    for path, symmetry in own.items():
        if path not in paths:
            raise UsageError(
                f"{TYPES_ATTRIBUTE} of {type(model).__name__} names {path!r}, which is no module "
                "of it"
            )
        SymmetryType.parse(symmetry)
    return dict(own)


def irreps_out(model: nn.Module) -> dict[str, str]:
    """What e3nn's modules in ``model``, and others that do as they do, say of their output, by
    path."""
    found = {}
    for path, module in model.named_modules():
        try:
            text = str(module.irreps_out)
            SymmetryType.parse(text)
        except (AttributeError, UsageError):
            continue
        found[path] = text.replace("+", " + ")
    return found


def as_declared(name: str, symmetry: str, shape: torch.Size) -> tuple[str, Arrangement]:
    """The type that the model declares for the layer ``name``; raises ``UsageError`` where it does
    not fit the shape."""
    kind = SymmetryType.parse(symmetry)
    if kind.cartesian and shape[-2:] == (3, 3):
        return "0e + 2e", kind.components
    if not kind.invariant and shape[1 if kind.voxel else -1] != kind.dim:
        raise UsageError(
            f"the layer {name} is declared {symmetry!r}, of {kind.dim} components, and returns the "
            f"shape {tuple(shape)}"
        )
    return symmetry, lambda each: each


def as_told(irreps: str, shape: torch.Size, grid: bool) -> tuple[str, Arrangement] | None:
    """The type that a module's own irreps are of a feature of this shape, with its layout; None
    where they are of another of its results, or on a ``grid`` whose rows are flattened."""
    dimension = SymmetryType.parse(irreps).dim
    if len(shape) == 5 and len(set(shape[2:])) == 1 and shape[1] == dimension:
        return f"voxel({irreps})", lambda each: each
    if len(shape) == 5 and len(set(shape[1:4])) == 1 and shape[-1] == dimension:
        return f"voxel({irreps})", lambda each: each.movedim(-1, 1)
    return (irreps, lambda each: each) if not grid and shape[-1] == dimension else None


def possible_types(shape: torch.Size, group: Group) -> Iterator[tuple[str, Arrangement]]:
    """The types that a feature of this shape may have, with how to lay it out for them."""
    if group == "octahedral" and len(shape) == 5 and len(set(shape[2:])) == 1:
        yield f"voxel({shape[1]}x0e)", lambda each: each
        return
    yield "0e", lambda each: each
    vectors = _VECTORS if group == "o3" else _VECTORS[:1]
    if group == "o3":
        yield "0o", lambda each: each
    last = shape[-1]
    for axis in range(1, len(shape)):
        for degree in range(1, _MOST_DEGREE + 1):
            if shape[axis] == 2 * degree + 1:
                for parity in "oe" if group == "o3" else "eo"[degree % 2]:
                    yield f"{degree}{parity}", _moved(axis)
            if shape[axis] == (degree + 1) ** 2:
                # As spherical harmonics are written, one of each degree.
                names = (f"{each}{'eo'[each % 2]}" for each in range(degree + 1))
                yield " + ".join(names), _moved(axis)
    if len(shape) == 1:
        return
    for scalars in (0, last // 4):
        copies, rest = divmod(last - scalars, 3)
        if rest or not copies or (scalars and copies != scalars) or last == 3:
            continue
        for vector in vectors:
            symmetry = f"{scalars}x0e + {copies}x{vector}" if scalars else f"{copies}x{vector}"
            yield symmetry, lambda each: each
            yield symmetry, _by_component(scalars, copies)


def _moved(axis: int) -> Arrangement:
    return lambda each: each.movedim(axis, -1)


def _by_component(scalars: int, copies: int) -> Arrangement:
    """From scalars, all x, all y and all z to scalars and one vector after the other."""

    def arranged(each: Tensor) -> Tensor:
        vectors = each[..., scalars:].reshape(*each.shape[:-1], 3, copies).mT.flatten(-2)
        return torch.cat((each[..., :scalars], vectors), dim=-1)

    return arranged
