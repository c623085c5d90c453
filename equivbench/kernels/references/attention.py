"""References of the attentions: every logit written out."""

from __future__ import annotations

import torch
from torch import Tensor

from equivbench.kernels.attention_operations import InvariantPointAttention, PairBiasAttention


def pair_bias_attention(
    operation: PairBiasAttention, query: Tensor, key: Tensor, value: Tensor, bias: Tensor
) -> Tensor:
    """Softmax of products."""
    logits = torch.einsum("bhic,bhjc->bhij", query, key) / operation.width**0.5 + bias
    return torch.einsum("bhij,bhjc->bihc", logits.softmax(-1), value).flatten(2)


def invariant_point_attention(
    operation: InvariantPointAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_points: Tensor,
    key_points: Tensor,
    value_points: Tensor,
    bias: Tensor,
    point_weight: Tensor,
    frames: Tensor,
    positions: Tensor,
) -> Tensor:
    """Distances from differences of points."""
    placed = [
        torch.einsum("bnhpa,bnac->bnhpc", points, frames) + positions[:, :, None, None]
        for points in (query_points, key_points, value_points)
    ]
    apart = (placed[0][:, :, None] - placed[1][:, None]).square().sum((-1, -2))
    logits = (
        torch.einsum("bihc,bjhc->bijh", query, key) / operation.scalars**0.5
        - point_weight / 2 * apart
    )
    attention = (logits + bias.permute(0, 2, 3, 1)).softmax(2)
    scalars = torch.einsum("bijh,bjhc->bihc", attention, value)
    mean = torch.einsum("bijh,bjhpc->bihpc", attention, placed[2]) - positions[:, :, None, None]
    local = torch.einsum("bnhpc,bnac->bnhpa", mean, frames)
    return torch.cat(
        [scalars.flatten(2), local.flatten(2), (mean.square().sum(-1) + 1e-12).sqrt().flatten(2)],
        dim=2,
    )
