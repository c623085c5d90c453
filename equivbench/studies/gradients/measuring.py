"""Gradients of the twirled and the equivariance error along a run that kept snapshots, and how far
its weights are from symmetric ones.

A model says which parameters break its symmetry, and what their nearest symmetric values are, by a
method

    symmetric_projection(self) -> dict[str, Tensor]

that maps a parameter's name (as in the module's ``named_parameters``) to a tensor of its shape: the
orthogonal projection of its present value onto the values at which the module is equivariant. It is
optional, and belongs only where the projection is known in closed form; any submodule may have it,
so wrappers need not pass it on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from equivbench.errors import UsageError
from equivbench.execution.loading import find_snapshots
from equivbench.studies.gradients.record import GradientPoint, Gradients, GradientsRequest
from equivbench.studies.gradients.statistics import (
    Array,
    correlations,
    norm,
    ratio,
)
from equivbench.studies.record import Estimate, Weights
from equivbench.studies.run import FixedLoss, still, trained_run
from equivbench.training.arm import load_model
from equivbench.training.checkpoint import read_checkpoint

MOST_SAMPLES = 128
"""Most samples by default. A pair whose evaluations judge few, because each costs much, is given
half of those."""


def analyse_gradients(run: str, request: GradientsRequest) -> Gradients:
    """Measure the gradients of both parts of the error at every snapshot of ``run`` (a record, run
    id, checkpoint or snapshot); which runs ``request`` names plays no part.

    The samples, their noise and their rotations are the same at every snapshot. Raises
    ``UsageError`` for names that do not exist and numbers that do not fit, ``FailedError`` for a
    run without snapshots, or files that cannot be read.
    """
    snapshots = find_snapshots(run).snapshots
    with trained_run(snapshots[-1], request) as trained:
        samples, size = request.samples, len(trained.split)
        if samples is None:
            # At least two a chunk, and no more than an evaluation of the run can afford.
            evaluated = trained.arm.pair_preset.test_samples or size
            samples = min(size, max(2 * request.chunks, min(MOST_SAMPLES, evaluated // 2)))
        loss = trained.losses(load_model(snapshots[-1], request.weights)[0])(
            samples=samples, chunks=request.chunks, rotations=request.rotations, seed=request.seed
        )
        reasons: dict[str, str] = {}
        points = []
        for index, path in enumerate(snapshots):
            model = load_model(path, request.weights)[0].to(trained.device)
            point, missing = _at_snapshot(path, model, loss, request.weights)
            points.append(point)
            reasons |= {f"points.{index}.{name}": reason for name, reason in missing.items()}
    analysis = Gradients(
        **trained.described(lambda record: replace(request, runs=(record,))),
        samples=loss.samples,
        chunks=request.chunks,
        rotations=request.rotations,
        points=points,
        correlations={},
        reasons=reasons,
    )
    for name, found in correlations([analysis]).items():
        analysis.correlations[name] = Estimate.of(found.quantity)
        if found.reason is not None:
            reasons[f"correlations.{name}"] = found.reason
    return analysis


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
    unused: frozenset[str]
    """Parameters on which neither part depends."""


def part_gradients(model: nn.Module, loss: FixedLoss) -> PartGradients:
    """The gradients of both parts of the error of ``model``, dropout off; raises ``UsageError`` if
    nothing in it is trained.

    Both parts are unbiased on each chunk, so their gradients are, and products of different chunks
    (see :mod:`equivbench.studies.gradients.statistics`). One forward and two backward passes for
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
    with still(model):
        for chunk in loss.chunks:
            parts = loss.parts(model, chunk)
            twirled.append(_gradient(parts.twirled, trained, keep=True))
            equivariance.append(_gradient(parts.equivariance, trained, keep=False))
    weights = np.array(loss.weights())
    pairs = zip(trained, zip(*twirled, strict=True), zip(*equivariance, strict=True), strict=True)
    unused = frozenset(
        name for name, mine, other in pairs if all(each is None for each in (*mine, *other))
    )
    return PartGradients(gram(twirled), gram(equivariance), weights, unused)


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


def _at_snapshot(
    path: Path, model: nn.Module, loss: FixedLoss, weights: Weights
) -> tuple[GradientPoint, dict[str, str]]:
    """The point of a snapshot, and why what it lacks is missing."""
    measured = part_gradients(model, loss)
    apart = deviation(model, measured.unused)
    at = read_checkpoint(path).facts.trace[-1]
    twirled, equivariance = measured.twirled_gram, measured.equivariance_gram
    norms = {
        "twirled_norm": norm(twirled, measured.weights),
        "equivariance_norm": norm(equivariance, measured.weights),
        "ratio": ratio(equivariance, twirled, measured.weights),
    }
    reasons = {name: each.reason for name, each in norms.items() if each.reason is not None}
    if apart is None:
        reasons["deviation"] = (
            "the model gives no symmetric projection of parameters that the error depends on"
        )
    test = at.ema if weights == "ema" else at.test
    point = GradientPoint(
        step=at.step,
        samples=at.samples,
        train_seconds=at.train_seconds,
        total=test.total,
        share=test.share,
        deviation=apart,
        **{name: Estimate.of(each.quantity) for name, each in norms.items()},
    )
    return point, reasons
