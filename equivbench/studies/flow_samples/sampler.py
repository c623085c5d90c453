"""Draws backbones from a trained flow: the ODE dx/dt = (x1_hat(x, t) - x) / (1 - t) from noise at t
= 0 to samples at t = 1."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from equivbench.errors import UsageError
from equivbench.tasks.flow.data import PAD
from equivbench.tasks.flow.task import centred

Method = Literal["euler", "heun"]
Schedule = Literal["log", "uniform"]
_LOG_DECADES = 2.0
"""The published schedule's parameter."""

Model = Callable[..., Mapping[str, Tensor]]


def time_grid(steps: int, schedule: Schedule = "log") -> Tensor:
    """[steps + 1] float64 flow times from 0 to 1.

    ``uniform``, or ``log``: 1 - 10^(-2 k / steps) stretched to [0, 1], steps that shrink a
    hundredfold towards t = 1, where the chain's bonds are made (Proteina's inference schedule,
    2503.00710).
    """
    if steps < 1:
        raise UsageError(f"the sampler takes at least 1 step, not {steps}")
    if schedule == "uniform":
        return torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    times = 1 - torch.logspace(0, -_LOG_DECADES, steps + 1, dtype=torch.float64)
    return times / times[-1]


def sample_backbones(
    model: Model,
    lengths: Sequence[int],
    *,
    generator: torch.Generator,
    steps: int = 100,
    method: Method = "euler",
    schedule: Schedule = "log",
    batch_size: int = 32,
) -> tuple[Tensor, Tensor]:
    """(x1 [samples, residues, 3] nm, centred on the mean of the residues, 0 in the padding; mask
    [samples, residues] of the residues that exist) of the given ``lengths`` in residues, drawn from
    noise of ``generator`` on its device, ``batch_size`` at once.

    ``model`` is called as in training, in evaluation mode and without gradients where the caller
    sees to it; Heun's method calls it twice a step but for the last. Raises ``UsageError`` for a
    length below 1.
    """
    times = time_grid(steps, schedule)
    if not lengths or min(lengths) < 1:
        raise UsageError("every backbone to sample needs a length of at least 1 residue")
    device = generator.device
    padded = -(-max(lengths) // PAD) * PAD
    mask = torch.arange(padded, device=device) < torch.tensor(lengths, device=device)[:, None]
    noise = centred(torch.randn(len(lengths), padded, 3, generator=generator, device=device), mask)
    parts = zip(torch.split(noise, batch_size), torch.split(mask, batch_size), strict=True)
    return torch.cat([integrate(model, x0, exists, times, method) for x0, exists in parts]), mask


def integrate(
    model: Model, x0: Tensor, mask: Tensor, times: Tensor, method: Method = "euler"
) -> Tensor:
    """``x1`` [samples, residues, 3] nm at the last of ``times`` from ``x0`` (centred, of the same
    shape) at the first.

    The last prediction is fed back as ``x_sc`` (zeros at first). The velocity is centred, so a
    chain stays where its noise was. Heun's method has error O(h^2), Euler's O(h); at t = 1, where
    the velocity is 0 / 0, a step of either is Euler's, which ends on the prediction itself.
    """
    residue = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape) * mask
    x, x_sc = x0, torch.zeros_like(x0)

    def velocity(x: Tensor, x_sc: Tensor, t: float) -> tuple[Tensor, Tensor]:
        said = model(x_t=x, x_sc=x_sc, t=x.new_full((len(x),), t), mask=mask, residue=residue)
        x1 = said["x1"].to(x.dtype).masked_fill(~mask[..., None], 0.0)
        return centred(x1 - x, mask) / (1 - t), x1

    for t, following in itertools.pairwise(times.tolist()):
        step = following - t
        v, x_sc = velocity(x, x_sc, t)
        if method == "heun" and following < 1:
            ahead, x_sc = velocity(x + step * v, x_sc, following)
            v = (v + ahead) / 2
        x = x + step * v
    return x
