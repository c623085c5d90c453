"""The attentions of structure networks in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from equivbench.kernels.backend import Kernel, Tensors
from equivbench.kernels.operations import InvariantPointAttention, PairBiasAttention

METHOD = "torch scaled_dot_product_attention"


def to_local(frames: Tensor, vectors: Tensor) -> Tensor:
    """Components [samples, residues, n, 3] in each residue's frame of vectors [samples, residues,
    n, 3]."""
    return vectors @ frames.transpose(-1, -2)


def to_global(frames: Tensor, components: Tensor) -> Tensor:
    """The vectors of which ``components`` [samples, residues, n, 3] are the components in each
    residue's frame."""
    return components @ frames


def length(x: Tensor) -> Tensor:
    """[..., 1], in the unit of x [..., 3], with finite gradients at 0."""
    return (x.square().sum(-1, keepdim=True) + 1e-12).sqrt()


def biased_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """[samples, residues, heads width] from [samples, heads, residues, width] and bias [samples,
    heads, residues, residues]."""
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    return mixed.transpose(1, 2).flatten(2)


def point_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    placed: Tensor,
    counts: tuple[int, int, int],
    weight: Tensor,
    bias: Tensor,
) -> tuple[Tensor, Tensor]:
    """Means of values and of points in space, [samples, residues, heads, scalars] and [..., 3 value
    points].

    ``placed`` [samples, residues, heads, 3 (a + b + c)] are query, key and value points (``counts``
    each) in space and ``weight`` [heads] that of their squared distances over two. As a residue's
    own points shift all its logits alike, |q - k|^2 needs only 2 q.k - |k|^2, so scalars and
    points are one product of longer queries and keys.
    """
    scalars = q.shape[-1]
    q_points, k_points, v_points = torch.split(placed, [3 * count for count in counts], dim=-1)
    weight = weight[:, None]
    query = torch.cat(
        [q * scalars**-0.5, weight * q_points, (-weight / 2).expand(*q.shape[:3], 1)], dim=-1
    )
    key = torch.cat([k, k_points, k_points.square().sum(-1, keepdim=True)], dim=-1)
    value = torch.cat([v, v_points], dim=-1)
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    mixed = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=bias, scale=1.0
    ).transpose(1, 2)
    means, points = torch.split(mixed, [scalars, 3 * counts[2]], dim=-1)
    return means, points


def pair_bias_kernel(operation: PairBiasAttention, like: Tensor) -> Kernel:
    """torch's fused attention."""
    return Kernel(
        lambda inputs: biased_attention(
            *(inputs[name] for name in ("query", "key", "value", "bias"))
        ),
        METHOD,
    )


def point_kernel(operation: InvariantPointAttention, like: Tensor) -> Kernel:
    """torch's fused attention on scalars and points together."""
    counts = operation.query_points, operation.query_points, operation.value_points

    def run(inputs: Tensors) -> Tensor:
        frames, positions = inputs["frames"], inputs["positions"]
        rows = positions.shape[:2]
        points = torch.cat(
            [inputs[f"{name}_points"].flatten(3) for name in ("query", "key", "value")], dim=-1
        )
        placed = to_global(frames, points.reshape(*rows, -1, 3)) + positions[:, :, None]
        means, moved = point_attention(
            inputs["query"],
            inputs["key"],
            inputs["value"],
            placed.reshape(*rows, operation.heads, -1),
            counts,
            inputs["point_weight"],
            inputs["bias"],
        )
        relative = moved.reshape(*rows, -1, 3) - positions[:, :, None]
        return torch.cat(
            [means.flatten(2), to_local(frames, relative).flatten(2), length(relative).flatten(2)],
            dim=-1,
        )

    return Kernel(run, METHOD)
