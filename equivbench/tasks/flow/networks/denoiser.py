"""What all networks of the task share at the output: a velocity about a Gaussian prior, and the end
point that it implies."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equivbench.tasks.flow.task import centred, x1_from_velocity


def prior_mean(x_t: Tensor, t: Tensor, data_scale: float) -> Tensor:
    """E[x1 | x_t] for normal x1 of standard deviation s and x0 of 1: t s^2 / (t^2 s^2 + (1 - t)^2)
    x_t.

    ``x_t`` is [samples, residues, 3] and t [samples].
    """
    t = t[:, None, None]
    return t * data_scale**2 / (t**2 * data_scale**2 + (1 - t) ** 2) * x_t


def prior_velocity(x_t: Tensor, t: Tensor, data_scale: float) -> Tensor:
    """E[x1 - x0 | x_t] under the same prior: (t s^2 - (1 - t)) / (t^2 s^2 + (1 - t)^2) x_t."""
    t = t[:, None, None]
    return (t * data_scale**2 - (1 - t)) / (t**2 * data_scale**2 + (1 - t) ** 2) * x_t


def prior_deviation(t: Tensor, data_scale: float) -> Tensor:
    """[samples, 1, 1] standard deviation of x1 - x0 given x_t under the same prior: s / sqrt(t^2
    s^2 + (1 - t)^2)."""
    t = t[:, None, None]
    return data_scale / torch.sqrt(t**2 * data_scale**2 + (1 - t) ** 2)


class Denoiser(nn.Module):
    """``forward(x_t, x_sc, t, mask, residue)`` returns ``x1`` [samples, residues, 3] nm.

    The velocity is that of an isotropic normal prior plus its standard deviation times what
    ``network`` gives, so that the network's target has unit variance at all times and an output of
    zero is a sensible prediction (the preconditioning of Karras et al. 2022, 2206.00364, for the
    linear path; Proteina's network gives the whole velocity). Where the network takes positions as
    vectors it is given the prior's guess of x1, which fades out towards t = 0, where x_t says
    nothing. The velocity is centred over the residues, as x1 - x0 is.

    Parameters
    ----------
    network
        Called as ``network(x_t, guess, x_sc, t, mask, residue)``, all padding zero; returns
        [samples, residues, 3].
    data_scale
        Standard deviation of the data's coordinates, nm.
    """

    def __init__(self, network: nn.Module, data_scale: float) -> None:
        super().__init__()
        self.network, self.data_scale = network, data_scale

    def forward(
        self, x_t: Tensor, x_sc: Tensor, t: Tensor, mask: Tensor, residue: Tensor
    ) -> dict[str, Tensor]:
        """The end point of the flow."""
        absent = ~mask
        x_t, x_sc = (x.masked_fill(absent[..., None], 0.0) for x in (x_t, x_sc))
        residue = residue.masked_fill(absent, 0)
        guess = prior_mean(x_t, t, self.data_scale)
        learned = self.network(x_t, guess, x_sc, t, mask, residue).to(x_t.dtype)
        # Differences of 1e-3 nm decide near t = 1: bfloat16 has 3 digits.
        with torch.autocast(x_t.device.type, enabled=False):
            velocity = (
                prior_velocity(x_t, t, self.data_scale)
                + prior_deviation(t, self.data_scale) * learned
            )
            return {"x1": x1_from_velocity(x_t, t, centred(velocity, mask))}
