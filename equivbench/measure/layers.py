"""Layer by layer: which symmetry type the features inside a model have, how far they are from it,
and so where an equivariance error enters and where it grows."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from equivbench.errors import UsageError
from equivbench.measure.caller import Caller
from equivbench.measure.elements import Elements
from equivbench.measure.measurement import Part, part_of
from equivbench.measure.precision import EPS
from equivbench.measure.rotated_set import Chunk
from equivbench.measure.verification import CONDITIONING
from equivbench.specs import Field, Group
from equivbench.symmetry.decomposition import Decomposition, decompose
from equivbench.symmetry.types import SymmetryType, transform

TYPES_ATTRIBUTE = "feature_types"
"""A model's own mapping from the path of a module to the symmetry type of what it returns."""
_FITS = 0.1
"""Most of a feature's variance that may be equivariance error under a type found for it."""
_MOST_DEGREE = 6
_VECTORS = ("1o", "1e")
_NAME = "feature"

Arrangement = Callable[[Tensor], Tensor]
"""Brings a feature into the order of axes that its type is written for."""


@dataclass(frozen=True, eq=False)
class LayerPart(Part):
    """The features that one call of a module returns, [rows, ...], judged against the best constant
    predictor: ``total`` is their variance, ``twirled`` that of their average over the group, and
    ``share`` what of it does not transform as ``symmetry`` says."""

    symmetry: str | None
    """In e3nn's notation; None: of those tried no type fits, and the figures are those of the type
    that fits best."""
    declared: bool
    """Whether the model says so (``feature_types``, or e3nn's ``irreps_out``), or it was found."""
    rounding: float
    """The share that rounding may leave."""

    @property
    def enters(self) -> bool:
        """Whether there is more equivariance error than rounding leaves in a feature of known
        type."""
        return self.symmetry is not None and self.share > self.rounding


def layers_of(caller: Caller, chunk: Chunk, elements: Elements) -> dict[str, LayerPart]:
    """Every module's features in the order of the calls, by the module's path.

    ``chunk`` holds some samples under ``elements``, each element for all samples alike, so that it
    does not matter which rows belong to which sample. Further calls of a module are ``PATH (2)``,
    further results ``PATH[1]`` or ``PATH.NAME``. Left out are results that are no floating-point
    tensor, that change shape with the rotation, that do not vary, and those that a module inside
    returned already.

    Raises ``UsageError`` where a declared type does not fit, or names no module.
    """
    declared = declared_types(caller.model)
    found: dict[str, list[Tensor]] = {}
    inverses, predictions = [], []
    for draw, inputs, outputs in caller.runs(chunk):
        predictions.append(caller.taken_back(outputs, draw.inverse, chunk))
        with recorded(caller.model) as features:
            caller.outputs(inputs)
        inverses.append(draw.inverse[:1])
        for name, each in features.items():
            found.setdefault(name, []).append(each)
    rounding = CONDITIONING * EPS[caller.precision] ** 2
    whole = decompose(
        torch.stack(predictions),
        torch.zeros_like(chunk.target),
        weights=chunk.weights,
        drawn_from=elements.drawn_from,
    )
    # Inside a model that is equivariant a type that does not hold is not the feature's.
    fits = _FITS if not whole.share <= rounding else rounding
    layers = {}
    for name, values in found.items():
        same = len(values) == len(inverses) and len({each.shape for each in values}) == 1
        if not same or not all(bool(each.isfinite().all()) for each in values):
            continue
        type_declared = declared.get(_path(name))
        part = _part(name, values, inverses, elements, type_declared, fits, rounding)
        if part is not None:
            layers[name] = part
    return layers


def declared_types(model: nn.Module) -> dict[str, str]:
    """The symmetry types that ``model`` tells of its features, by the path of the module: its
    mapping ``feature_types``, and ``irreps_out`` of e3nn's modules."""
    paths = dict(model.named_modules())
    found = {
        path: str(module.irreps_out).replace("+", " + ")
        for path, module in paths.items()
        if getattr(module, "irreps_out", None) is not None
    }
    own = getattr(model, TYPES_ATTRIBUTE, {})
    if not isinstance(own, Mapping):
        raise UsageError(f"{TYPES_ATTRIBUTE} of {type(model).__name__} must be a mapping")
    for path, symmetry in own.items():
        if path not in paths:
            raise UsageError(
                f"{TYPES_ATTRIBUTE} of {type(model).__name__} names {path!r}, which is no module "
                "of it"
            )
        SymmetryType.parse(symmetry)
        found[path] = symmetry
    return found


@contextlib.contextmanager
def recorded(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Fills the mapping with float64 copies of what the modules of ``model`` return in the block,
    in the order in which they return."""
    found: dict[str, Tensor] = {}
    seen: list[object] = []
    calls: dict[str, int] = {}

    def hook(path: str) -> Callable[[nn.Module, object, object], None]:
        def keep(_: nn.Module, __: object, returned: object) -> None:
            calls[path] = calls.get(path, 0) + 1
            name = path if calls[path] == 1 else f"{path} ({calls[path]})"
            for suffix, value in _tensors(returned):
                if any(value is other for other in seen):
                    continue
                seen.append(value)
                # Inside torch.func a tensor is wrapped, and the wrapper dies with the call.
                plain = torch.func.debug_unwrap(value)
                if plain.is_floating_point() and plain.dim() and len(plain):
                    found[name + suffix] = plain.detach().double().clone()

        return keep

    # What a module keeps under a private name (e3nn its compiled code) is its own affair.
    handles = [
        module.register_forward_hook(hook(path))
        for path, module in model.named_modules()
        if path and not any(part.startswith("_") for part in path.split("."))
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def summary(layers: Mapping[str, LayerPart]) -> str:
    """Where the error enters and where it grows most, of the layers whose type is known, as a
    sentence."""
    known = [(name, part) for name, part in layers.items() if part.symmetry is not None]
    first = next(((name, part) for name, part in known if part.enters), None)
    if not known:
        return "no layer has a symmetry type that is known here"
    if first is None:
        return (
            f"none of {len(known)} layers of known type breaks the symmetry by more than rounding"
        )
    said = f"the error enters by {first[0]} (share {first[1].share:.2g})"
    steps = [
        (after.share - before.share, name, before.share, after.share)
        for (_, before), (name, after) in itertools.pairwise(known)
        if after.enters and name != first[0]
    ]
    if steps and max(steps)[0] > 0:
        _, name, low, high = max(steps)
        said += f" and grows most at {name} ({low:.2g} to {high:.2g})"
    return said


# --- of one feature


def _path(name: str) -> str:
    """The module's path in the name of a feature."""
    return name.partition(" (")[0].partition("[")[0]


def _tensors(returned: object) -> Iterator[tuple[str, Tensor]]:
    if isinstance(returned, Tensor):
        yield "", returned
    elif isinstance(returned, list | tuple):
        for place, each in enumerate(returned):
            if isinstance(each, Tensor):
                yield f"[{place}]", each
    elif isinstance(returned, Mapping):
        for key, each in returned.items():
            if isinstance(each, Tensor):
                yield f".{key}", each


def _part(
    name: str,
    values: list[Tensor],
    inverses: list[Tensor],
    elements: Elements,
    declared: str | None,
    most: float,
    rounding: float,
) -> LayerPart | None:
    """The best of the types that the feature may have."""
    stacked = torch.stack(values)
    if declared is not None:
        kind = SymmetryType.parse(declared)
        axis = 1 if kind.voxel else -1
        if not kind.invariant and values[0].shape[axis] != kind.dim:
            raise UsageError(
                f"the layer {name} is declared {declared!r}, of {kind.dim} components, and returns "
                f"the shape {tuple(values[0].shape)}"
            )
        tried: list[tuple[str, Arrangement]] = [(declared, lambda each: each)]
    else:
        tried = list(_candidates(values[0].shape, elements.group))
    best: tuple[Decomposition, str] | None = None
    for symmetry, arrange in tried:
        errors = _errors(arrange, symmetry, values, inverses, elements)
        if not float(errors.total.sum()) > 0:
            continue
        if best is None or errors.share < best[0].share:
            best = errors, symmetry
    if best is None or not bool((stacked != 0).any()):
        return None
    errors, symmetry = best
    part = part_of(errors, torch.ones_like(errors.total), None, lambda: torch.tensor(math.nan))
    fits = declared is not None or errors.share <= most
    return LayerPart(
        **vars(part),
        symmetry=symmetry if fits else None,
        declared=declared is not None,
        rounding=rounding,
    )


def _errors(
    arrange: Arrangement,
    symmetry: str,
    values: list[Tensor],
    inverses: list[Tensor],
    elements: Elements,
) -> Decomposition:
    field = Field(_NAME, ("...",), "float64", symmetry, "graph", "1", "output")
    pulled = torch.stack(
        [
            transform({_NAME: arrange(value)}, [field], inverse, None)[_NAME]
            for value, inverse in zip(values, inverses, strict=True)
        ]
    )
    # All rows are one group: so few samples under the same elements give no interval.
    return decompose(
        pulled,
        _constant(pulled, SymmetryType.parse(symmetry)),
        groups=torch.zeros(pulled.shape[1], dtype=torch.int64, device=pulled.device),
        drawn_from=elements.drawn_from,
    )


def _constant(pulled: Tensor, kind: SymmetryType) -> Tensor:
    """[rows, ...] the mean over draws and rows, of the components that rotations leave alone."""
    mean = pulled.mean((0, 1))
    if kind.voxel:
        mean = mean.mean((-3, -2, -1), keepdim=True).expand(mean.shape)
    sizes = torch.tensor([copies * (2 * degree + 1) for copies, degree in kind.irreps])
    scalar = torch.tensor([float(degree == 0) for _, degree in kind.irreps])
    if all(degree == 0 for _, degree in kind.irreps):
        # A pseudoscalar's mean is none: it would change sign with the hand.
        kept = mean if set(kind.parities) == {1} else torch.zeros_like(mean)
    else:
        mask = scalar.repeat_interleave(sizes).to(mean)
        kept = mean * (mask[:, None, None, None] if kind.voxel else mask)
    return kept.expand(pulled.shape[1:])


def _candidates(shape: torch.Size, group: Group) -> Iterator[tuple[str, Arrangement]]:
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
