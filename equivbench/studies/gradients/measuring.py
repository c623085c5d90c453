"""Gradients of the twirled and the equivariance error by a model's parameters, on independent
chunks of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from equivbench.errors import UsageError
from equivbench.studies.fixed_loss import FixedLoss, still
from equivbench.studies.gradients.ustatistics import Array, Judged, norm, ratio


@dataclass(frozen=True)
class PartGradients:
    """What the gradients of both parts on the K chunks of a :class:`FixedLoss` come to.

    Norms are Euclidean, over all parameters that are trained, in units of the board metric per unit
    of parameter.
    """

    twirled_gram: Array
    """[K, K] products of the chunks' gradients of the twirled error."""
    equivariance_gram: Array
    weights: Array
    """[K] share of all rows that each chunk holds."""
    total: float
    """The error itself on these samples; ``equivariance`` its part."""
    equivariance: float
    unused: frozenset[str]
    """Parameters on which neither part depends."""

    @property
    def twirled_norm(self) -> Judged:
        """Norm of the gradient of the twirled error."""
        return norm(self.twirled_gram, self.weights)

    @property
    def equivariance_norm(self) -> Judged:
        """Norm of the gradient of the equivariance error."""
        return norm(self.equivariance_gram, self.weights)

    @property
    def ratio(self) -> Judged:
        """``equivariance_norm / twirled_norm``."""
        return ratio(self.equivariance_gram, self.twirled_gram, self.weights)


def part_gradients(model: nn.Module, loss: FixedLoss) -> PartGradients:
    """The gradients of both parts of the error of ``model``, dropout off; raises ``UsageError`` if
    nothing in it is trained.

    Both parts are unbiased on each chunk, so their gradients are, and products of different chunks
    (see :mod:`equivbench.studies.gradients.ustatistics`). One forward and two backward passes for
    each rotation of each chunk.
    """
    trained = {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    if not trained:
        raise UsageError(
            f"{type(model).__name__} has no parameter that is trained, so its error has no gradient"
        )
    twirled: list[Sequence[Tensor | None]] = []
    equivariance: list[Sequence[Tensor | None]] = []
    values = []
    with still(model):
        for chunk in loss.chunks:
            parts = loss.parts(model, chunk)
            twirled.append(_gradient(parts.twirled, trained, keep=True))
            equivariance.append(_gradient(parts.equivariance, trained, keep=False))
            values.append((float(parts.total.detach()), float(parts.equivariance.detach())))
    weights = np.array(loss.weights())
    total, breaking = (weights @ np.array(values)).tolist()
    pairs = zip(trained, zip(*twirled, strict=True), zip(*equivariance, strict=True), strict=True)
    unused = frozenset(
        name for name, mine, other in pairs if all(each is None for each in (*mine, *other))
    )
    return PartGradients(gram(twirled), gram(equivariance), weights, total, breaking, unused)


def gram(gradients: Sequence[Sequence[Tensor | None]]) -> Array:
    """[K, K] products of K gradients, each a tensor a parameter (None: zero), summed in float64."""
    products = np.zeros((len(gradients), len(gradients)))
    for same_parameter in zip(*gradients, strict=True):
        known = [k for k, each in enumerate(same_parameter) if each is not None]
        if known:
            rows = torch.stack(
                [each.detach().double().flatten() for each in same_parameter if each is not None]
            )
            products[np.ix_(known, known)] += (rows @ rows.T).cpu().numpy()
    return products


def _gradient(
    error: Tensor, trained: Mapping[str, nn.Parameter], keep: bool
) -> Sequence[Tensor | None]:
    if not error.requires_grad:
        return [None] * len(trained)
    return torch.autograd.grad(error, list(trained.values()), retain_graph=keep, allow_unused=True)
