"""The attentions of structure networks, as operations: what lies between the linear maps. Imports
no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from equivbench.kernels.operations import Operation


@dataclass(frozen=True)
class PairBiasAttention(Operation):
    """softmax(q k^T / width^1/2 + bias) v (Jumper et al. 2021, AlphaFold 2, algorithm 7 without
    gates).

    Inputs: ``query``, ``key``, ``value`` [samples, heads, residues, width]; ``bias`` [samples,
    heads, residues, residues]. Output: [samples, residues, heads width].
    """

    name: ClassVar[str] = "pair-bias-attention"
    differentiable: ClassVar[tuple[str, ...]] = ("query", "key", "value", "bias")

    heads: int
    width: int


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

    name: ClassVar[str] = "invariant-point-attention"
    differentiable: ClassVar[tuple[str, ...]] = (
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
