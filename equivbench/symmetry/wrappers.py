"""Symmetrising wrappers round any model: averaging over rotations, over frames (in training all of
them, or one drawn by chance), or one canonical frame.

Each acts through the declared fields of inputs and outputs, so it needs to know nothing of the
task; derivatives of the frames by the positions are left out, so a conservative model goes inside
the wrapper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from equivbench.errors import ModelError, UsageError
from equivbench.symmetry.rotations import octahedral_rotations, random_rotations
from equivbench.symmetry.types import SymmetryType, rotate

if TYPE_CHECKING:
    from equivbench.specs import Field

_TWIRL_SEED = 0
_SIGNS = ((1, 1), (1, -1), (-1, 1), (-1, -1))
"""Of the first two principal axes: with the third their cross product, the four proper frames."""


def wrap(
    name: str, model: nn.Module, fields: Sequence[Field], index_field: str | None
) -> nn.Module:
    """``model`` in the wrapper called ``name``.

    Parameters
    ----------
    name
        ``twirl-N`` (the average over N fixed Haar rotations when evaluated), ``twirl-octahedral``
        (over the cube group), ``frames``, ``stochastic-frames`` or ``canonical``.
    model
        Called with inputs by keyword, returns a mapping of outputs.
    fields, index_field
        The task's declarations, and the field that maps nodes to graphs.

    Raises
    ------
    UsageError
        For another name.
    """
    if name in _IN_FRAMES:
        return _IN_FRAMES[name](model, fields, index_field)
    kind, _, count = name.partition("-")
    if name == "twirl-octahedral":
        return Twirl(model, fields, index_field, octahedral_rotations(torch.float64))
    if kind == "twirl" and count.isdecimal() and int(count) > 0:
        generator = torch.Generator().manual_seed(_TWIRL_SEED)
        rotations = random_rotations(int(count), generator=generator, dtype=torch.float64)
        return Twirl(model, fields, index_field, rotations)
    raise UsageError(
        f"wrapper {name!r} is not one of twirl-N, twirl-octahedral, {', '.join(_IN_FRAMES)}"
    )


class _Wrapper(nn.Module):
    """A model called in rotated frames, its outputs rotated back and averaged."""

    def __init__(self, model: nn.Module, fields: Sequence[Field], index_field: str | None) -> None:
        super().__init__()
        self.model = model
        self.fields = tuple(fields)
        self.index_field = index_field
        requires: Mapping[str, float] | None = getattr(model, "requires", None)
        if requires is not None:
            self.requires = requires

    def points(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, int]:
        """(points [nodes, 3], graph of each [nodes], number of graphs): the first input declared as
        vectors that make up a graph.

        One vector per node, or [graphs, points, 3] per graph: there points of padding must be 0 and
        the others centred, so that padding moves neither mean nor moments.
        """
        for field in self.fields:
            if field.name not in inputs or SymmetryType.parse(field.symmetry) != SymmetryType(
                ((1, 1),)
            ):
                continue
            points = inputs[field.name]
            if field.per == "graph" and points.dim() == 3:
                graphs = torch.arange(len(points), device=points.device)
                return points.flatten(0, 1), graphs.repeat_interleave(points.shape[1]), len(points)
            if field.per == "node":
                index = (
                    points.new_zeros(len(points), dtype=torch.int64)
                    if self.index_field is None
                    else inputs[self.index_field]
                )
                return points, index, int(index.max()) + 1
        raise UsageError(
            "frames need an input of type '1o' that makes up a point cloud, and none is declared; "
            "use twirl-N instead"
        )

    def average(
        self, inputs: Mapping[str, Tensor], rotations: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Mean over ``rotations`` (each [graphs, 3, 3] or [1, 3, 3] float64) of the outputs on
        rotated inputs, rotated back."""
        # A model whose inputs are all per sample (a grid) is not given the index.
        index = None if self.index_field is None else inputs.get(self.index_field)
        sums: dict[str, Tensor] = {}
        dtypes: dict[str, torch.dtype] = {}
        for rotation in rotations:
            outputs = self._rows_kept(
                self.model(**rotate(inputs, self.fields, rotation, index)), inputs, index
            )
            dtypes = {name: output.dtype for name, output in outputs.items()}
            back = rotate(
                {name: output.double() for name, output in outputs.items()},
                self.fields,
                rotation.transpose(1, 2),
                index,
            )
            sums = {name: output + sums[name] if sums else output for name, output in back.items()}
        return {name: (total / len(rotations)).to(dtypes[name]) for name, total in sums.items()}

    def _rows_kept(
        self, outputs: object, inputs: Mapping[str, Tensor], index: Tensor | None
    ) -> Mapping[str, Tensor]:
        """``outputs`` if they are a mapping whose declared tensors have a row for each node or
        graph, as the inputs have: one row would be rotated as if it were that of all. Raises
        ``ModelError``."""
        inside = f"the model in {type(self).__name__}"
        if not isinstance(outputs, Mapping):
            raise ModelError(
                f"{inside} returned a {type(outputs).__name__}, not a mapping of outputs"
            )
        rows = {each.per: len(inputs[each.name]) for each in self.fields if each.name in inputs}
        if index is not None:
            rows["node"] = len(index)
        for each in self.fields:
            found = outputs.get(each.name)
            if not isinstance(found, Tensor) or each.per == "none" or each.per not in rows:
                continue
            if found.shape[:1] != (rows[each.per],):
                raise ModelError(
                    f"{inside} gives {each.name!r} of shape {tuple(found.shape)}, not a row for "
                    f"each of {rows[each.per]} {each.per}s"
                )
        return outputs


class Twirl(_Wrapper):
    """The average over fixed rotations [n, 3, 3] when evaluated; the model itself in training.

    Over n Haar rotations the squared error is M + V/n on average over their choice (M, V: the
    model's twirled and equivariance error). Over a whole group the wrapped model is equivariant
    under it.
    """

    def __init__(
        self, model: nn.Module, fields: Sequence[Field], index_field: str | None, rotations: Tensor
    ) -> None:
        super().__init__(model, fields, index_field)
        # No buffer: casting the module to a lower precision must not make the rotations inexact.
        self._rotations = rotations.double()

    def forward(self, **inputs: Tensor) -> Mapping[str, Tensor]:
        """The model's outputs, averaged over the rotations in evaluation mode."""
        if self.training:
            plain: Mapping[str, Tensor] = self.model(**inputs)
            return plain
        device = next(iter(inputs.values())).device
        return self.average(inputs, [rotation[None].to(device) for rotation in self._rotations])


class FrameAverage(_Wrapper):
    """Frame averaging over the four proper PCA frames of each graph (Puny et al., ICLR 2022):
    exactly SO(3)-equivariant.

    The frames jump where two principal moments are equal (rings, tetrahedra, single atoms): there
    the output is defined but not continuous, and equivariant only up to the choice of frame.
    """

    def forward(self, **inputs: Tensor) -> Mapping[str, Tensor]:
        """The outputs averaged over the frames, in training and evaluation alike."""
        axes, _ = principal_axes(*self.points(inputs))
        return self.average(
            inputs,
            [
                _proper(axes, axes.new_tensor(sign).expand(len(axes), 2)).transpose(1, 2)
                for sign in _SIGNS
            ],
        )


class StochasticFrames(FrameAverage):
    """One of the four frames of each graph, drawn by chance, in training, and the average over all
    four when evaluated (stochastic frame averaging: Duval et al., ICML 2023, 2305.05577).

    The four frames turn with the graph as a set, and each is as likely as the others: an output on
    a rotated graph has the distribution of the rotated outputs, so it is SO(3)-equivariant in
    expectation, and its mean over the draw is that of :class:`FrameAverage`. A training step takes
    one pass. Evaluated by one draw the prediction would be that mean plus noise of its own, and no
    function of its input; over all frames it is deterministic and exactly equivariant, for four
    passes. Drawn from torch's global generator.
    """

    def forward(self, **inputs: Tensor) -> Mapping[str, Tensor]:
        """The outputs in one frame a graph in training, averaged over the four in evaluation."""
        if not self.training:
            return super().forward(**inputs)
        axes, _ = principal_axes(*self.points(inputs))
        drawn = torch.randint(len(_SIGNS), (len(axes),))
        signs = torch.tensor(_SIGNS, dtype=axes.dtype)[drawn].to(axes.device)
        return self.average(inputs, [_proper(axes, signs).transpose(1, 2)])


class Canonical(_Wrapper):
    """Canonicalisation: one PCA frame per graph, each axis pointing where the third moment along it
    is positive.

    SO(3)-equivariant, but discontinuous where two principal moments are equal and where the third
    moment along one of the first two axes passes through zero; a graph with a centre of inversion,
    where both vanish, has no canonical frame at all. The third axis follows from the other two.
    """

    def forward(self, **inputs: Tensor) -> Mapping[str, Tensor]:
        """The outputs computed in the canonical frame, in training and evaluation alike."""
        axes, skewness = principal_axes(*self.points(inputs))
        signs = torch.where(skewness[:, :2] >= 0, 1.0, -1.0).to(axes.dtype)
        return self.average(inputs, [_proper(axes, signs).transpose(1, 2)])


_IN_FRAMES: Mapping[str, type[_Wrapper]] = {
    "frames": FrameAverage,
    "stochastic-frames": StochasticFrames,
    "canonical": Canonical,
}
"""By the name of the wrapper."""


def principal_axes(points: Tensor, index: Tensor, graphs: int) -> tuple[Tensor, Tensor]:
    """(axes [graphs, 3, 3], third moments [graphs, 3]) of points [nodes, 3] about the mean of each
    graph, in float64.

    Columns are the principal axes with the largest moment first, of arbitrary sign. No gradient
    flows through them.
    """
    with torch.no_grad():
        points = points.double()
        zeros = points.new_zeros(graphs, 3)
        counts = torch.bincount(index, minlength=graphs).clamp(min=1)[:, None]
        centred = points - (zeros.index_add(0, index, points) / counts)[index]
        products = centred[:, :, None] * centred[:, None, :]
        moments = points.new_zeros(graphs, 3, 3).index_add(0, index, products)
        axes = torch.linalg.eigh(moments).eigenvectors.flip(-1)
        along = torch.einsum("ni,nij->nj", centred, axes[index])
        return axes, zeros.index_add(0, index, along**3)


def _proper(axes: Tensor, signs: Tensor) -> Tensor:
    """[graphs, 3, 3] frames of determinant +1: the first two axes with ``signs`` [graphs, 2], the
    third their cross product."""
    first, second = (axes[..., :2] * signs[:, None, :]).unbind(-1)
    return torch.stack((first, second, torch.linalg.cross(first, second)), dim=-1)
