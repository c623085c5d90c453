"""Layer by layer: which symmetry type the features inside a model have, how far they are from it,
and so where an equivariance error enters and where it grows."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from equivbench.measure.caller import Caller
from equivbench.measure.elements import Elements
from equivbench.measure.feature_types import (
    Arrangement,
    as_declared,
    as_told,
    declared_types,
    irreps_out,
    possible_types,
)
from equivbench.measure.measurement import Part, part_of
from equivbench.measure.precision import EPS
from equivbench.measure.rotated_set import Chunk
from equivbench.measure.verification import CONDITIONING
from equivbench.specs import Field
from equivbench.symmetry.decomposition import Decomposition, decompose
from equivbench.symmetry.types import SymmetryType, transform

_FITS = 0.1
"""Most of a feature's variance that may be equivariance error under a type found for it."""
_MOST_SAMPLES = 8
_ROOM = 8
"""How many copies of a feature under all elements there is room for."""
_VALUES_AT_ONCE = 1 << 26
"""Numbers of features, over all draws, that are kept at a time: 512 MiB, and as much again for each
of a few temporaries. The model is run again for the next."""
_NAME = "feature"


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
    """The share of ``power`` that rounding may leave."""
    power: float
    """Mean square of the feature, its constants included."""

    @property
    def enters(self) -> bool:
        """Whether there is more equivariance error than rounding leaves in a feature of known
        type."""
        return self.symmetry is not None and self.equivariance > self.rounding * self.power


def layers_of(
    caller: Caller, some: Callable[[int], Chunk], elements: Elements
) -> dict[str, LayerPart]:
    """Every module's features in the order of the calls, by the module's path.

    ``some`` gives a chunk of so many samples under ``elements``, each element for all samples
    alike, so that it does not matter which rows belong to which sample. Further calls of a module
    are ``PATH (2)``, further results ``PATH[1]`` or ``PATH.NAME``. Left out are results that are no
    floating-point tensor, that change shape with the rotation, that do not vary, and those that a
    module inside returned already.

    Raises ``UsageError`` where a declared type does not fit, or names no module.
    """
    declared, told = declared_types(caller.model), irreps_out(caller.model)
    largest = max(_sizes(caller, some(1)).values(), default=1) * len(elements)
    chunk = some(max(1, min(_MOST_SAMPLES, _VALUES_AT_ONCE // (_ROOM * largest))))
    given, inverses, predictions = [], [], []
    for draw, inputs, outputs in caller.runs(chunk):
        given.append(inputs)
        inverses.append(draw.inverse[:1])
        predictions.append(caller.taken_back(outputs, draw.inverse, chunk))
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
    for names in _portions(_sizes(caller, chunk), _VALUES_AT_ONCE // len(given)):
        found: dict[str, list[Tensor]] = {name: [] for name in names}
        for inputs in given:
            with hooked(caller.model, found) as features:
                caller.outputs(inputs)
            for name, each in features.items():
                found[name].append(each)
        for name, values in found.items():
            same = len(values) == len(given) and len({each.shape for each in values}) == 1
            if not same or not all(bool(each.isfinite().all()) for each in values):
                continue
            path, shape = _path(name), values[0].shape
            known = None
            if path in declared:
                known = as_declared(name, declared[path], shape)
            elif path in told:
                known = as_told(told[path], shape, caller.task.interpolates)
            part = _part(values, inverses, elements, known, fits, rounding)
            if part is not None:
                layers[name] = part
    return layers


def _sizes(caller: Caller, chunk: Chunk) -> dict[str, int]:
    """How many numbers each feature has under one element."""
    _, inputs, _ = next(caller.runs(chunk))
    with hooked(caller.model) as first:
        caller.outputs(inputs)
    return {name: each.numel() for name, each in first.items()}


def _portions(sizes: Mapping[str, int], most: int) -> Iterator[list[str]]:
    """The names in their order, as many at a time as have ``most`` values together."""
    portion: list[str] = []
    held = 0
    for name, size in sizes.items():
        if portion and held + size > most:
            yield portion
            portion, held = [], 0
        portion.append(name)
        held += size
    if portion:
        yield portion


@contextlib.contextmanager
def hooked(model: nn.Module, wanted: Container[str] | None = None) -> Iterator[dict[str, Tensor]]:
    """Fills the mapping with float64 copies of what the modules of ``model`` return in the block,
    in the order in which they return; of all, or of the ``wanted`` names."""
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
                if wanted is not None and name + suffix not in wanted:
                    continue
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
    values: list[Tensor],
    inverses: list[Tensor],
    elements: Elements,
    known: tuple[str, Arrangement] | None,
    most: float,
    rounding: float,
) -> LayerPart | None:
    """The best of the types that the feature may have, or the one that is known."""
    stacked = torch.stack(values)
    possible = possible_types(values[0].shape, elements.group)
    tried = list(possible) if known is None else [known]
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
    power = float(stacked.square().sum()) / (len(values) * len(values[0]))
    exact = part.equivariance <= rounding * power
    fits = known is not None or exact or errors.share <= most
    return LayerPart(
        **vars(part),
        symmetry=symmetry if fits else None,
        declared=known is not None,
        rounding=rounding,
        power=power,
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
    """[rows, ...] the mean over draws and rows, of the components that rotations leave alone; 0 for
    a single row, which is no better than its mean."""
    if pulled.shape[1] == 1:
        return torch.zeros_like(pulled[0])
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
