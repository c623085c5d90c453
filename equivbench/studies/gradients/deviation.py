"""How far a model's symmetry-breaking parameters are from their symmetric projection.

A model says which parameters break its symmetry, and what their nearest symmetric values are, by a
method

    symmetric_projection(self) -> dict[str, Tensor]

that maps a parameter's name (as in the module's ``named_parameters``) to a tensor of its shape: the
orthogonal projection of its present value onto the values at which the module is equivariant. It is
optional, and belongs only where the projection is known in closed form; any submodule may have it,
so wrappers need not pass it on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class Projectable(Protocol):
    """A module that knows its symmetric projection."""

    def symmetric_projection(self) -> dict[str, Tensor]:
        """The symmetry-breaking parameters, by name, each moved to its nearest symmetric value."""
        ...


def deviation(model: nn.Module, ignored: Collection[str] = ()) -> float | None:
    """sum |theta - P theta|^2 / sum |theta|^2 over the symmetry-breaking parameters theta, P their
    projection.

    0 where the model is exactly symmetric. None where no module knows a projection, or every such
    parameter is among ``ignored`` (names of parameters on which the error does not depend, such as
    a head that conservative forces replace).
    """
    apart, size = 0.0, 0.0
    known = False
    for name, parameter, projected in _projected(model):
        if name in ignored:
            continue
        known = True
        apart += float((parameter.double() - projected.double()).square().sum())
        size += float(parameter.double().square().sum())
    if not known:
        return None
    return apart / size if size > 0 else 0.0


def _projected(model: nn.Module) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(full name, value, projection) of every parameter that some submodule can project."""
    for prefix, module in model.named_modules():
        parameters = dict(module.named_parameters())
        if not isinstance(module, Projectable):
            continue
        with torch.no_grad():
            for name, projected in module.symmetric_projection().items():
                yield f"{prefix}.{name}".lstrip("."), parameters[name].detach(), projected.detach()
