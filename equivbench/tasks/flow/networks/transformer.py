"""A Proteina-style transformer on raw coordinates, the trunk that the invariant network shares, and
the denoiser round all three networks: a velocity about a Gaussian prior.

The trunk is transformer blocks with adaptive layer norms, the attention of each biased by features
of pairs of residues.

After Proteina (Geffner et al. 2025, 2503.00710, its layers after AlphaFold 3): normalised queries
and keys, gated attention, SwiGLU transitions. The time enters through scales, shifts and gates of
every layer, and each residual branch starts at zero (Peebles & Xie 2023, 2212.09748).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from equivbench.kernels.backends.plain.attention import biased_attention
from equivbench.tasks.flow.networks.features import PairEmbedding, ResidueEmbedding, TimeEmbedding
from equivbench.tasks.flow.task import centred, x1_from_velocity

ABSENT = -1e9
"""Logit of a residue that does not exist: its weight is exactly 0 in every precision, and a row of
nothing else stays finite."""


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


def denoiser(network: Callable[..., nn.Module], config: Mapping[str, Any]) -> Denoiser:
    """The network of the sizes in ``config`` about the prior of its ``data_scale`` (nm)."""
    sizes = dict(config)
    scale = sizes.pop("data_scale")
    return Denoiser(network(**sizes), scale)


def modulate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Layer norm of x [samples, residues, dim], scaled and shifted by functions of the time
    [samples, 1, dim]."""
    normalised: Tensor = functional.layer_norm(x, x.shape[-1:])
    return normalised * (1 + scale) + shift


class PairBiasedAttention(nn.Module):
    """Self-attention with normalised queries and keys, logits biased by ``bias``, and gated
    values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projection = nn.Linear(dim, 4 * dim, bias=False)
        self.query_norm, self.key_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.out = zero_initialised(nn.Linear(dim, dim))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """From x [samples, residues, dim] and bias [samples, heads, residues, residues]."""
        query, key, value, gate = self.projection(x).chunk(4, dim=-1)
        query, key = self.query_norm(query), self.key_norm(key)
        # Layer norms leave autocast in float32.
        q, k, v = (
            part.to(value.dtype).reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)
            for part in (query, key, value)
        )
        out: Tensor = self.out(biased_attention(q, k, v, bias.to(v.dtype)) * torch.sigmoid(gate))
        return out


class Transition(nn.Module):
    """SwiGLU feed-forward layer of ``expansion`` times the width."""

    def __init__(self, dim: int, expansion: int) -> None:
        super().__init__()
        self.inner = nn.Linear(dim, 2 * expansion * dim, bias=False)
        self.out = zero_initialised(nn.Linear(expansion * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """From x [..., dim]."""
        gate, value = self.inner(x).chunk(2, dim=-1)
        out: Tensor = self.out(functional.silu(gate) * value)
        return out


class Block(nn.Module):
    """An attention (any module called with x and what ``forward`` passes on) and a transition, both
    under the time's control."""

    def __init__(self, attention: nn.Module, dim: int, expansion: int, time: int) -> None:
        super().__init__()
        self.attention, self.transition = attention, Transition(dim, expansion)
        self.modulation = zero_initialised(nn.Linear(time, 6 * dim))

    def forward(self, x: Tensor, time: Tensor, *geometry: Tensor) -> Tensor:
        """New features [samples, residues, dim] from x and the time's features [samples, T]."""
        scale_a, shift_a, gate_a, scale_t, shift_t, gate_t = self.modulation(time)[:, None].chunk(
            6, dim=-1
        )
        x = x + (1 + gate_a) * self.attention(modulate(x, scale_a, shift_a), *geometry)
        out: Tensor = x + (1 + gate_t) * self.transition(modulate(x, scale_t, shift_t))
        return out


class PairBias(nn.Module):
    """Attention biases of all layers from the features of pairs, minus infinity for residues that
    do not exist."""

    def __init__(self, pair: int, layers: int, heads: int) -> None:
        super().__init__()
        self.layers = layers
        self.linear = nn.Linear(pair, layers * heads)

    def forward(self, pair: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """One [samples, heads, residues, residues] a layer, from pair [samples, residues, residues,
        P]."""
        bias: Tensor = self.linear(pair).permute(0, 3, 1, 2)
        return torch.chunk(bias.masked_fill(~mask[:, None, None], ABSENT), self.layers, dim=1)


class Trunk(nn.Module):
    """The transformer that two networks share; what they feed it and how they read it differ.

    Parameters
    ----------
    dim, layers, heads, expansion
        Width of the residues' features, blocks, heads of each, and width of the transitions over
        ``dim``.
    pair, time
        Widths of the features of pairs and of the time.
    """

    def __init__(
        self, dim: int, layers: int, heads: int, expansion: int, pair: int, time: int
    ) -> None:
        super().__init__()
        self.bias = PairBias(pair, layers, heads)
        self.blocks = nn.ModuleList(
            Block(PairBiasedAttention(dim, heads), dim, expansion, time) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, pair: Tensor, time: Tensor, mask: Tensor) -> Tensor:
        """Normalised features [samples, residues, dim] of x after all blocks."""
        for block, bias in zip(self.blocks, self.bias(pair, mask), strict=True):
            x = block(x, time, bias)
        out: Tensor = self.norm(x)
        return out


def zero_initialised(linear: nn.Linear) -> nn.Linear:
    """``linear`` with weights and bias 0."""
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


class CoordinateNetwork(nn.Module):
    """Coordinates as six ordinary numbers in, three out: nothing in it is equivariant under
    rotations but its features of pairs."""

    def __init__(
        self, dim: int, layers: int, heads: int, expansion: int, pair: int, time: int, bins: int
    ) -> None:
        super().__init__()
        self.time = TimeEmbedding(time)
        self.residue, self.position = ResidueEmbedding(dim), nn.Linear(6, dim)
        self.pair = PairEmbedding(pair, bins, time)
        self.trunk = Trunk(dim, layers, heads, expansion, pair, time)
        self.head = zero_initialised(nn.Linear(dim, 3))

    def forward(
        self, x_t: Tensor, guess: Tensor, x_sc: Tensor, t: Tensor, mask: Tensor, residue: Tensor
    ) -> Tensor:
        """[samples, residues, 3], no unit, from positions in nm."""
        time = self.time(t)
        with torch.autocast(x_t.device.type, enabled=False):
            x = self.position(torch.cat([guess, x_sc], dim=-1)) + self.residue(residue)
        x = self.trunk(x, self.pair(x_t, x_sc, residue, time), time, mask)
        with torch.autocast(x_t.device.type, enabled=False):
            out: Tensor = self.head(x.to(x_t.dtype))
        return out


def build(config: Mapping[str, Any]) -> Denoiser:
    """Config: ``dim``, ``layers``, ``heads``, ``expansion``, ``pair``, ``time``, distance ``bins``,
    ``data_scale`` (nm)."""
    return denoiser(CoordinateNetwork, config)
