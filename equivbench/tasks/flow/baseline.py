"""The best linear predictor of x1: the posterior mean of an isotropic Gaussian chain."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equivbench.tasks.base import Split


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
