"""How much of an error is a symmetry error: total = twirled + equivariance, from predictions on
rotated inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from equivbench.counted import counted
from equivbench.errors import UsageError
from equivbench.tabular import Tabular

Loss = Literal["squared", "norm"]
JACKKNIFE_ROTATIONS = 8
RESAMPLES = 2000
FEWEST_GROUPS = 4
"""Independent groups from which an interval is made. Of the resamples of three a ninth hold one
group alone and have no spread: more than the part that a 95% interval may leave out."""
_CHUNK = 4_000_000


@dataclass(frozen=True, eq=False)
class Decomposition(Tabular):
    """The parts of the error, row by row, in float64; ``total == twirled + equivariance`` to
    rounding, never clipped."""

    table_factory: ClassVar[str] = "equivbench.report.measurements:decomposition_table"

    total: Tensor
    """[batch] error of the predictions."""
    twirled: Tensor
    """[batch] error of the prediction averaged over all rotations; unbiased, so a single row may be
    below 0."""
    equivariance: Tensor
    """[batch] what the predictions lose by differing from their average."""
    groups: Tensor
    """[batch] int64: the independent unit of each row."""

    def __repr__(self) -> str:
        total, twirled, broken = (
            float(part.detach().sum()) for part in (self.total, self.twirled, self.equivariance)
        )
        return (
            f"<Decomposition of {counted(len(self.total), 'row')}: total {total:.4g} = "
            f"twirled {twirled:.4g} + equivariance {broken:.4g}, share {self.share:.2g}>"
        )

    @property
    def share(self) -> float:
        """sum(equivariance) / sum(total): a ratio of sums, not a mean of ratios. NaN where the
        total is 0."""
        total = self.total.detach().sum()
        return float(self.equivariance.detach().sum() / total) if total != 0 else math.nan

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """(low, high) of the share at confidence ``level``: a studentised bootstrap over groups,
        the same on every call.

        Within 0 and 1, whatever the unbiased estimates are. (NaN, NaN) for fewer than four groups
        or a total of 0; raises ``UsageError`` for a level outside (0, 1).
        """
        return ratio_interval(
            sum_by_group(self.equivariance, self.groups),
            sum_by_group(self.total, self.groups),
            level,
            most=1.0,
        )

    def rows(self, selected: Tensor) -> Decomposition:
        """The same of the rows that a [batch] mask or index selects."""
        parts = (self.total, self.twirled, self.equivariance, self.groups)
        return Decomposition(*(part[selected] for part in parts))


def decompose(
    pulled_back: Tensor,
    target: Tensor,
    *,
    weights: Tensor | None = None,
    groups: Tensor | None = None,
    exhaustive: bool = False,
    drawn_from: int | None = None,
    quadrature: Tensor | None = None,
    loss: Loss = "squared",
) -> Decomposition:
    """Split the error of predictions on rotated inputs into a twirled and an equivariance part.

    With ``p_i = rho(g_i)^-1 f(g_i x)``, their mean ``pbar`` and n draws, the spread
    ``s2 = mean |p_i - pbar|^2`` and the error ``b = |pbar - y|^2`` give
    ``equivariance = n/(n-1) s2``, ``twirled = b - s2/(n-1)`` and ``total = s2 + b``, each unbiased
    (arXiv 2512.02303, with the correction that its notebooks leave out of the twirled part). Draws
    without replacement from a finite group of N keep only 1 - n/N of both corrections.
    Computed in float64 relative to the first prediction, so that neither a large offset nor a tiny
    share costs accuracy. Differentiable in ``pulled_back`` and ``target``.

    Parameters
    ----------
    pulled_back
        [n_rotations, batch, ...] predictions on rotated inputs, rotated back.
    target
        [batch, ...]. Squared errors are summed over the trailing axes.
    weights
        Broadcast to [batch, ...], fewer axes counting from the batch axis; a mask is 0 or 1.
        Entries of weight 0 may hold anything, NaN included, and contribute 0.
    groups
        [batch] integers: which rows belong together (atoms of one molecule), the unit that the
        interval resamples. None: each row by itself.
    exhaustive
        False: rotations are draws. True: they are a whole finite group, and the plug-in values are
        exact.
    drawn_from
        Size of the finite group of which the rotations are different elements, drawn without
        replacement. None: they are iid draws.
    quadrature
        [n_rotations] weights of the rotations, which are then the points of a quadrature
        (:func:`equivbench.symmetry.quadrature.rotation_quadrature`): weighted sums are taken for
        the averages themselves. None: every rotation counts alike.
    loss
        ``squared``, or ``norm``: the Euclidean norm over the last axis, its twirled part by the
        jackknife, which still leaves a bias at small n; weights must not differ along that axis.

    Raises
    ------
    UsageError
        (a ``ValueError``) for shapes that do not fit, negative weights, or fewer draws than the
        estimator needs: 2 for ``squared``, 8 for ``norm``.
    """
    n = len(pulled_back)
    exhaustive = exhaustive or n == drawn_from or quadrature is not None
    _check(pulled_back, target, groups, exhaustive, loss)
    average = _average(n, quadrature, pulled_back.device)
    if drawn_from is not None and n > drawn_from:
        raise UsageError(f"{n} different rotations cannot be drawn from a group of {drawn_from}")
    unseen = 0.0 if exhaustive else 1.0 if drawn_from is None else 1 - n / drawn_from
    weight = None if weights is None else broadcast_weights(weights, target.shape)
    if weight is not None:
        dropped = weight == 0
        pulled_back, target = pulled_back.masked_fill(dropped, 0), target.masked_fill(dropped, 0)
    # Differences to the first draw are exact in float64 for float32 predictions, whatever their
    # offset.
    first = pulled_back[0].double()
    shifts = pulled_back.double() - first
    error, mean = first - target.double(), average(shifts)
    if loss == "squared":
        spread = average(_row_sums((shifts - mean).square(), weight, 1))
        plug_in = _row_sums((error + mean).square(), weight, 0)
        correction = torch.zeros_like(spread) if exhaustive else unseen * spread / (n - 1)
        total, twirled, equivariance = spread + plug_in, plug_in - correction, spread + correction
    else:
        if weight is not None:
            weight = _per_vector(weight)
        total = average(_row_sums((error + shifts).norm(dim=-1), weight, 1))
        twirled = _row_sums((error + mean).norm(dim=-1), weight, 0)
        if not exhaustive:
            without = error + (n * mean - shifts) / (n - 1)
            shortened = _row_sums(without.norm(dim=-1), weight, 1).mean(0)
            twirled = twirled - unseen * (n - 1) * (shortened - twirled)
        equivariance = total - twirled
    rows = torch.arange(len(target), device=target.device) if groups is None else groups
    return Decomposition(total, twirled, equivariance, rows.to(total.device))


def _average(
    count: int, quadrature: Tensor | None, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """The mean over the first axis, or its weighted sum."""
    if quadrature is None:
        return lambda values: values.mean(0)
    if quadrature.shape != (count,):
        raise UsageError(
            f"quadrature must be [{count}], a weight a rotation, found {tuple(quadrature.shape)}"
        )
    weights = quadrature.to(device=device, dtype=torch.float64)
    if not bool((weights > 0).all()) or abs(float(weights.sum()) - 1) > 1e-9:
        raise UsageError("the weights of a quadrature must be positive and sum to 1")
    return lambda values: torch.tensordot(weights, values, dims=1)


def sum_by_group(values: Tensor, groups: Tensor) -> Tensor:
    """[G] sums of ``values`` [batch] over each of the groups [batch], in ascending order of group;
    no gradient."""
    names, index = torch.unique(groups, return_inverse=True)
    return values.new_zeros(len(names)).index_add(0, index, values.detach())


def ratio_interval(
    numerator: Tensor,
    denominator: Tensor,
    level: float = 0.95,
    most: float = math.inf,
    signed: bool = False,
) -> tuple[float, float]:
    """(low, high) of sum(numerator) / sum(denominator), resampling their shared entries [G]: the
    independent groups. The true ratio is known to lie between 0 and ``most``.

    A bootstrap of the t statistic on the cube-root scale, symmetric in |t|. Sums of squares are
    skewed, and their cube root is close to normal (Wilson and Hilferty, PNAS 1931); plain
    percentiles and BCa cover 85-93% at 100 groups of log-normal size where this covers 93-96%.
    ``signed``: the entries are differences, whose sum may fall below 0; the scale is then that of
    the ratio itself. The resamples are seeded, so equal input gives an equal interval. (NaN, NaN)
    where the groups are too few (:data:`FEWEST_GROUPS`) or the resamples too alike to bound
    anything.
    """
    if not 0 < level < 1:
        raise UsageError(f"a confidence level lies between 0 and 1, not {level}")
    count = len(numerator)
    if count < FEWEST_GROUPS or denominator.sum() == 0:
        return math.nan, math.nan
    v, t = numerator.detach().double().cpu(), denominator.detach().double().cpu()
    columns = torch.stack((v, t, v * v, v * t, t * t), dim=1)
    ratio, error = _ratio_and_error(columns.sum(0))
    if error == 0:
        return float(ratio), float(ratio)
    ratios, errors = _ratio_and_error(_resample(columns))
    if signed:
        statistic = (ratios - ratio).abs() / errors
    else:
        # Going from r to r^(1/3) divides an error by 3 r^(2/3); the constant cancels.
        statistic = (_cbrt(ratios) - _cbrt(ratio)).abs() * _cbrt(ratios).square() / errors
    # A resample without spread says nothing about the size of an error: it counts as infinitely
    # far.
    quantile = torch.quantile(
        statistic.nan_to_num(nan=math.inf, posinf=math.inf), level, interpolation="higher"
    )
    if not math.isfinite(quantile):
        return math.nan, math.nan
    if signed:
        ends = [ratio + sign * quantile * error for sign in (-1, 1)]
        return float(ends[0].clamp(0, most)), float(ends[1].clamp(0, most))
    reach = quantile * error / _cbrt(ratio).square()
    low, high = ((_cbrt(ratio) + sign * reach) ** 3 for sign in (-1, 1))
    return float(low.clamp(0, most)), float(high.clamp(0, most))


def _resample(columns: Tensor) -> Tensor:
    """[RESAMPLES, k] column sums of [G, k] over G entries drawn with replacement, as count matrices
    times columns."""
    count = len(columns)
    generator = torch.Generator().manual_seed(0)
    sums = []
    step = max(1, _CHUNK // count)
    for start in range(0, RESAMPLES, step):
        drawn = torch.randint(count, (min(step, RESAMPLES - start), count), generator=generator)
        counts = torch.zeros(drawn.shape, dtype=columns.dtype).scatter_add_(
            1, drawn, torch.ones((), dtype=columns.dtype).expand(drawn.shape)
        )
        sums.append(counts @ columns)
    return torch.cat(sums)


def _ratio_and_error(sums: Tensor) -> tuple[Tensor, Tensor]:
    """The ratio and its linearised standard error from sums [..., 5] of (v, t, v^2, vt, t^2)."""
    v, t, vv, vt, tt = sums.unbind(-1)
    ratio = v / t
    return ratio, (vv - 2 * ratio * vt + ratio.square() * tt).clamp(min=0).sqrt() / t


def _cbrt(values: Tensor) -> Tensor:
    return values.sign() * values.abs() ** (1 / 3)


def _row_sums(values: Tensor, weight: Tensor | None, leading: int) -> Tensor:
    """Weighted sum over all axes behind the batch axis, which is axis ``leading``."""
    weighted = values if weight is None else values * weight
    return weighted.flatten(leading + 1).sum(-1) if weighted.dim() > leading + 1 else weighted


def broadcast_weights(weights: Tensor, shape: torch.Size) -> Tensor:
    """Weights as float64 of ``shape``, [batch] ones against [batch, ...] values counting from the
    batch axis; raises ``UsageError`` for negative ones and for shapes that do not fit."""
    if not bool((weights >= 0).all()):
        raise UsageError("weights must be numbers of at least 0")
    padded = weights.reshape(weights.shape + (1,) * max(0, len(shape) - weights.dim()))
    for candidate in (padded, weights):
        try:
            return candidate.double().broadcast_to(shape)
        except RuntimeError:
            continue
    raise UsageError(
        f"weights of shape {tuple(weights.shape)} do not broadcast to predictions of shape "
        f"{tuple(shape)}"
    )


def _per_vector(weight: Tensor) -> Tensor:
    """[batch, ...] without the last axis, along which a norm has one weight."""
    if not bool((weight == weight[..., :1]).all()):
        raise UsageError(
            "loss='norm' takes one weight per vector, but the weights differ along the last axis"
        )
    return weight[..., 0]


def _check(
    pulled_back: Tensor, target: Tensor, groups: Tensor | None, exhaustive: bool, loss: str
) -> None:
    if loss not in ("squared", "norm"):
        raise UsageError(f"loss {loss!r} is not one of squared, norm")
    if target.dim() < 1 or pulled_back.shape[1:] != target.shape:
        found, wanted = tuple(pulled_back.shape), ("n_rotations", *target.shape)
        raise UsageError(
            "predictions must have the target's shape behind a first axis of rotations, "
            f"{wanted}: found {found}"
        )
    if loss == "norm" and target.dim() < 2:
        raise UsageError(
            "loss='norm' takes vectors along the last axis, but the target has shape "
            f"{tuple(target.shape)}"
        )
    if groups is not None and groups.shape != target.shape[:1]:
        raise UsageError(f"groups must be [{len(target)}], one a row, found {tuple(groups.shape)}")
    needed = 1 if exhaustive else 2 if loss == "squared" else JACKKNIFE_ROTATIONS
    if len(pulled_back) < needed:
        raise UsageError(
            f"loss={loss!r} needs at least {needed} rotations, found {len(pulled_back)}"
        )
