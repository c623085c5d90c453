"""The flow-matching task: the end point of a noisy protein backbone (CA atoms), and how well it is
predicted over all times; the path and its times; and the best linear predictor.

Proteina's choices (Geffner et al. 2025, 2503.00710): x_t = (1 - t) x0 + t x1 in nm, v-prediction, t
from .02 U(0, 1) + .98 Beta(1.9, 1), squared error of x1 weighted by 1 / ((1 - t)^2 + 1e-5).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from equivbench.errors import UsageError
from equivbench.tasks.base import Batch, Feedback, Split, Task, TaskData
from equivbench.tasks.flow.declarations import BOARD_UNIT, FIELDS

TIMES = (0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99)
"""The published flow times, nodes of the test quadrature, but for t = 0, where nothing is known and
all predictors that learned anything say the same."""
UNIFORM_PART, BETA_EXPONENT = 0.02, 1.9
WEIGHT_OFFSET = 1e-5


def centred(x: Tensor, mask: Tensor) -> Tensor:
    """``x`` [samples, residues, 3] about the mean of each sample's residues, and 0 where ``mask``
    is False."""
    x = x.masked_fill(~mask[..., None], 0.0)
    count = mask.sum(1).clamp(min=1).to(x.dtype)[:, None, None]
    return (x - x.sum(1, keepdim=True) / count).masked_fill(~mask[..., None], 0.0)


def interpolate(x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """The linear path (1 - t) x0 + t x1, [samples, residues, 3], for t [samples]."""
    t = t[:, None, None]
    return (1 - t) * x0 + t * x1


def x1_from_velocity(x_t: Tensor, t: Tensor, v: Tensor) -> Tensor:
    """The end point x_t + (1 - t) v that a velocity v [samples, residues, 3] (nm) implies: x_t
    itself at t = 1."""
    return x_t + (1 - t[:, None, None]) * v


def density(t: Tensor) -> Tensor:
    """p(t) of the training times: .02 + .98 * 1.9 t^0.9 on [0, 1]."""
    return UNIFORM_PART + (1 - UNIFORM_PART) * BETA_EXPONENT * t ** (BETA_EXPONENT - 1)


def draw_times(samples: int, generator: torch.Generator) -> Tensor:
    """[samples] float32 training times, on the generator's device."""
    uniform = torch.rand(2, samples, generator=generator, device=generator.device)
    # Beta(a, 1) has the distribution function t^a, hence the root.
    return torch.where(uniform[0] < UNIFORM_PART, uniform[1], uniform[1] ** (1 / BETA_EXPONENT))


def objective_weight(t: Tensor) -> Tensor:
    """1 / ((1 - t)^2 + 1e-5): the weight of the squared error of x1, which makes it one of v but
    for the last .003."""
    return 1 / ((1 - t) ** 2 + WEIGHT_OFFSET)


@cache
def objective_quadrature() -> Tensor:
    """[7] float64 weights W of the mean squared errors E(t) of x1 at ``TIMES``: sum W E is the
    expected training objective.

    The squared error of v, E / (1 - t)^2, is taken as linear between the times and constant below
    the first and above the last one, and its integral with p(t) (1 - t)^2 / ((1 - t)^2 + 1e-5) is
    exact. The integral of E's own interpolant would be ruled by its value above t = .99, where 81%
    of p(t) / ((1 - t)^2 + 1e-5) lies.
    """
    nodes = torch.tensor(TIMES, dtype=torch.float64)
    weights = torch.zeros(len(TIMES), dtype=torch.float64)
    for k, (left, right) in enumerate(pairwise(TIMES)):
        t, mass = _mass(left, right)
        weights[k] += (mass * (right - t) / (right - left)).sum()
        weights[k + 1] += (mass * (t - left) / (right - left)).sum()
    # Neither end is smooth: p(t) grows as t^.9 from 0, and the weight has width sqrt(1e-5) = .003
    # at 1.
    for left, right in pairwise([0.0, *(TIMES[0] * 0.5**k for k in reversed(range(12)))]):
        weights[0] += _mass(left, right)[1].sum()
    for left, right in pairwise([*(1 - (1 - TIMES[-1]) * 0.5**k for k in range(12)), 1.0]):
        weights[-1] += _mass(left, right)[1].sum()
    return weights / (1 - nodes) ** 2


def _mass(left: float, right: float) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre abscissae t on [left, right], and the weights with which values there of the
    squared error of v count in the objective; both [64] float64."""
    x, w = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(64))
    t = (left + right) / 2 + (right - left) / 2 * x
    return t, density(t) * (1 - t) ** 2 * objective_weight(t) * (right - left) / 2 * w


class FlowMatching(Task):
    """Predict x1 from x_t; the board metric is the training objective over the mean of its weights:
    the weighted mean of |x1 - x1_hat|^2 in nm^2.

    The mean over t is a fixed quadrature through seven of the published times, at each of which
    every test sample is judged with noise of its own. The noise x0 is standard normal in nm,
    centred on the mean of the residues.
    """

    name = "flow"
    prediction = "x1"
    index_field = None
    board_unit = BOARD_UNIT
    fields = FIELDS
    test_points: ClassVar[int] = len(TIMES)
    feedback: ClassVar[Feedback | None] = Feedback(input="x_sc", output="x1", probability=0.5)

    def noise(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """x0, times of the training distribution, and the objective's weights of those."""
        t = draw_times(len(batch["mask"]), generator)
        return self._noise(batch, generator, t, objective_weight(t))

    def test_noise(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """x0 for every row, the seven times in turn, and their weights.

        The mean over rows of ``weight`` times the error is the expectation of the training
        objective.
        """
        turns = len(batch["mask"]) // len(TIMES)
        t, weight = (
            values.float().repeat(turns).to(generator.device)
            for values in (torch.tensor(TIMES), objective_quadrature() * len(TIMES))
        )
        return self._noise(batch, generator, t, weight)

    def _noise(
        self, batch: Batch, generator: torch.Generator, t: Tensor, weight: Tensor
    ) -> dict[str, Tensor]:
        mask = batch["mask"].to(generator.device)
        x0 = torch.randn(*mask.shape, 3, generator=generator, device=generator.device)
        return {"x0": centred(x0, mask), "t": t, "weight": weight}

    def assemble(
        self, batch: Batch, noise: Batch, requires: Mapping[str, float]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Inputs x_t, x_sc (zeros), t, mask and residue; targets x1 and, for the objective, mask
        and weight.

        Nothing else can be required: that is a ``UsageError``.
        """
        if requires:
            raise UsageError(
                f"task flow builds no input {min(requires)!r}; its models take x_t, x_sc, t, mask "
                "and residue"
            )
        x_t = interpolate(noise["x0"], batch["x1"], noise["t"])
        inputs = {
            "x_t": x_t,
            "x_sc": torch.zeros_like(x_t),
            "t": noise["t"],
            "mask": batch["mask"],
            "residue": batch["residue"],
        }
        return inputs, {"x1": batch["x1"], "mask": batch["mask"], "weight": noise["weight"]}

    def objective(self, outputs: Batch, targets: Batch, inputs: Batch) -> Tensor:
        """Mean over samples of weight(t) times the mean over residues of |x1 - x1_hat|^2."""
        mask = targets["mask"]
        error = (outputs["x1"].to(targets["x1"].dtype) - targets["x1"]).masked_fill(
            ~mask[..., None], 0.0
        )
        per_sample = error.square().sum((1, 2)) / mask.sum(1).clamp(min=1)
        loss: Tensor = (targets["weight"] * per_sample).mean()
        return loss

    def samples_in(self, batch: Batch) -> int:
        """Number of backbones."""
        return len(batch["mask"])

    def weights(self, batch: Batch) -> Tensor:
        """[samples, residues, 1]: those of :meth:`objective`, the sample's shared among its
        residues."""
        mask = batch["mask"]
        weight = batch["weight"] / mask.sum(1).clamp(min=1)
        return (mask * weight[:, None])[..., None]

    def strata(self, batch: Batch) -> tuple[tuple[str, ...], Tensor]:
        """The samples by flow time."""
        times = torch.tensor(TIMES, dtype=batch["t"].dtype, device=batch["t"].device)
        return tuple(f"t={t:g}" for t in TIMES), (batch["t"][:, None] - times).abs().argmin(1)

    def baseline(self, split: Split) -> float:
        """That of the best predictor that sees no shape, x_t times one gain a time, over all noise.

        The objective's weight near t = 1 leaves nothing to explain above it to whoever predicts the
        centre, which is 0.
        """
        signal, noise = mean_squares(split)
        t, weights = torch.tensor(TIMES, dtype=torch.float64), objective_quadrature()
        left = noise * (1 - t) ** 2
        return float((weights * signal * left / (t**2 * signal + left)).sum() / weights.sum())

    def untrained(self, data: TaskData, seed: int = 0) -> dict[str, nn.Module]:
        """``linear``: a Gaussian chain with the training split's mean squared distances;
        ``isotropic``: one without bonds."""
        return {
            "linear": GaussianChain.fit(data.train),
            "isotropic": GaussianChain.unbonded(mean_squares(data.train)[0]),
        }


def mean_squares(split: Split) -> tuple[float, float]:
    """Means over the samples of ``split`` of the mean over residues of |x1|^2, in nm^2, and of what
    is expected of |x0|^2 there, 3 less what centring takes."""
    sums = torch.zeros(2, dtype=torch.float64)
    for indices in torch.split(torch.arange(len(split)), 1024):
        batch = split.collate(indices)
        residues = batch["mask"].sum(1).double()
        square = batch["x1"].double().square().sum((1, 2))
        sums += torch.stack([square / residues, 3 - 3 / residues]).sum(1)
    signal, noise = (sums / len(split)).tolist()
    return signal, noise


class GaussianChain(nn.Module):
    """``forward(x_t, t, mask)`` returns ``x1`` [samples, residues, 3] nm, E[x1 | x_t] if chains
    were Gaussian.

    The covariance of a chain's residues, alike in x, y and z, follows from the mean squared
    distances D(s) of residues s apart: C = -J D J / 6 with J the projection that centres, negative
    eigenvalues set to 0. With centred unit noise each eigenvector of C is filtered by itself, gain
    t l / (t^2 l + (1 - t)^2) at eigenvalue l (Wiener). Averaged over orientations no linear
    predictor that treats residues by their distance along the chain does better.

    Parameters
    ----------
    squared_distances
        D [separations] nm^2, float64, from D(0) = 0 on; longer separations than it has take its
        last value.
    """

    squared_distances: Tensor

    def __init__(self, squared_distances: Tensor) -> None:
        super().__init__()
        self.register_buffer("squared_distances", squared_distances.double())

    @classmethod
    def fit(cls, split: Split) -> GaussianChain:
        """The chain with the mean squared distances of ``split``, each residue pair counting
        alike."""
        total, count = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        for indices in torch.split(torch.arange(len(split)), 64):
            batch = split.collate(indices)
            x, mask = batch["x1"].double(), batch["mask"]
            longest = mask.shape[1]
            if longest > len(total):
                total, count = (
                    torch.cat([sums, sums.new_zeros(longest - len(sums))])
                    for sums in (total, count)
                )
            for separation in range(longest):
                both = mask[:, separation:] & mask[:, : longest - separation]
                steps = (x[:, separation:] - x[:, : longest - separation]).square().sum(-1)
                total[separation] += steps[both].sum()
                count[separation] += both.sum()
        known = int((count > 0).sum())
        return cls(total[:known] / count[:known])

    @classmethod
    def unbonded(cls, mean_square: float) -> GaussianChain:
        """Residues that know nothing of each other but their common centre, ``mean_square`` nm^2
        about it: isotropic normal."""
        # Independent points of variance c about their centre lie 2 c apart in the mean square,
        # whatever their separation.
        return cls(torch.tensor([0.0, 2 * mean_square]))

    def covariance(self, length: int) -> Tensor:
        """[length, length] float64 nm^2: that of one coordinate of a centred chain."""
        index = torch.arange(length, device=self.squared_distances.device)
        apart = (index[:, None] - index).abs().clamp(max=len(self.squared_distances) - 1)
        centring = torch.eye(length, dtype=torch.float64, device=index.device) - 1 / length
        values, vectors = torch.linalg.eigh(
            -centring @ self.squared_distances[apart] @ centring / 6
        )
        covariance: Tensor = (vectors * values.clamp(min=0)) @ vectors.T
        return covariance

    def forward(self, x_t: Tensor, t: Tensor, mask: Tensor, **_: Tensor) -> dict[str, Tensor]:
        """Chains of equal length together; the filter acts in float64."""
        out = torch.zeros_like(x_t)
        lengths = mask.sum(1)
        for length in set(lengths.tolist()):
            rows = (lengths == length).nonzero()[:, 0]
            values, vectors = torch.linalg.eigh(self.covariance(length))
            values = values.clamp(min=0)
            times = t[rows, None].double()
            noise = (1 - times) ** 2
            # At t = 1 a mode of no variance has 0 / 0: the data's modes all have gain 1, the others
            # are absent.
            gain = (
                times
                * values
                / (times**2 * values + noise).clamp(min=torch.finfo(torch.float64).tiny)
            )
            modes = vectors.T @ x_t[rows, :length].double()
            out[rows, :length] = (vectors @ (gain[..., None] * modes)).to(x_t.dtype)
        return {"x1": out}
