"""AlphaFold 2's invariant-point attention: what lies between its linear maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from equivbench.kernels.operations.base import Case, Costs, Drawn, Operation, Sizes
from equivbench.kernels.operations.pair_bias_attention import attention_passes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class InvariantPointAttention(Operation):
    """Attention whose logits also count distances of points and that moves points (Jumper et al.
    2021, algorithm 22).

    logit_ij = q_i . k_j / scalars^1/2 - w_h / 2 sum_p |T_i a_ip - T_j b_jp|^2 + bias_ij, with w_h
    the given weight; T x = F^T x + r for frames F (rows are axes) and positions r. Output, for each
    residue: the mean of v_j, then T_i^-1 of the mean of T_j c_jp, then its lengths (|x|^2 +
    1e-12)^1/2, each heads first.

    Inputs: ``query``, ``key``, ``value`` [samples, residues, heads, scalars]; ``query_points`` (a),
    ``key_points`` (b) [samples, residues, heads, query_points, 3], ``value_points`` (c) [samples,
    residues, heads, value_points, 3], in each residue's frame; ``bias`` [samples, heads, residues,
    residues]; ``point_weight`` [heads]; ``frames`` [samples, residues, 3, 3]; ``positions``
    [samples, residues, 3]. Output: [samples, residues, heads (scalars + 4 value_points)].
    """

    name = "invariant-point-attention"
    differentiable = (
        "query",
        "key",
        "value",
        "query_points",
        "key_points",
        "value_points",
        "bias",
        "point_weight",
    )

    heads: int
    scalars: int
    query_points: int
    value_points: int

    def arguments(self, sizes: Sizes) -> dict[str, Drawn]:
        """Normal numbers in random frames; weights that keep distances of the order of products."""
        rows = samples, residues = sizes["samples"], sizes["residues"]
        counts = {"query": self.query_points, "key": self.query_points, "value": self.value_points}
        return {
            **{name: Drawn((*rows, self.heads, self.scalars)) for name in counts},
            **{f"{name}_points": Drawn((*rows, self.heads, n, 3)) for name, n in counts.items()},
            "bias": Drawn((samples, self.heads, residues, residues)),
            "point_weight": Drawn((self.heads,), "uniform", 1 / self.query_points, first=0.1),
            "frames": Drawn((*rows, 3, 3), "frames"),
            "positions": Drawn((*rows, 3)),
        }

    def reference(
        self,
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
        """Distances from differences of points, every logit written out."""
        import torch

        placed = [
            torch.einsum("bnhpa,bnac->bnhpc", points, frames) + positions[:, :, None, None]
            for points in (query_points, key_points, value_points)
        ]
        apart = (placed[0][:, :, None] - placed[1][:, None]).square().sum((-1, -2))
        logits = (
            torch.einsum("bihc,bjhc->bijh", query, key) / self.scalars**0.5
            - point_weight / 2 * apart
        )
        attention = (logits + bias.permute(0, 2, 3, 1)).softmax(2)
        scalars = torch.einsum("bijh,bjhc->bihc", attention, value)
        mean = torch.einsum("bijh,bjhpc->bihpc", attention, placed[2]) - positions[:, :, None, None]
        local = torch.einsum("bnhpc,bnac->bnhpa", mean, frames)
        lengths = (mean.square().sum(-1) + 1e-12).sqrt()
        return torch.cat([scalars.flatten(2), local.flatten(2), lengths.flatten(2)], dim=2)

    def passes(self, sizes: Sizes, itemsize: int) -> tuple[Costs, ...]:
        """Scalars and points are longer queries and keys of one product."""
        places = sizes["samples"] * sizes["residues"]
        points = 2 * self.query_points + self.value_points
        return attention_passes(
            itemsize,
            places * self.heads,
            sizes["residues"],
            self.scalars + 3 * self.query_points,
            self.scalars + 3 * self.value_points,
            arguments=3 * (self.scalars + points),
            output=self.scalars + 4 * self.value_points,
            fixed=12 * places,
        )


CASES = (
    Case(
        "point-attention-64",
        InvariantPointAttention(8, 16, 4, 8),
        {"samples": 4, "residues": 64},
        1,
        "AlphaFold 2's structure module with 8 heads, 64 residues",
        quick=True,
    ),
    Case(
        "point-attention-256",
        InvariantPointAttention(12, 16, 4, 8),
        {"samples": 1, "residues": 256},
        1,
        "AlphaFold 2's structure module: 12 heads of 16, 4 query and 8 value points"
        " (Jumper et al. 2021, algorithm 22)",
    ),
)
