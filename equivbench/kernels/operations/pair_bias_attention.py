"""The attention of structure networks whose logits a tensor of pairs shifts: what lies between its
linear maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from equivbench.kernels.operations.base import Case, Costs, Drawn, Operation, Sizes, bilinear_passes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PairBiasAttention(Operation):
    """softmax(q k^T / width^1/2 + bias) v (Jumper et al. 2021, AlphaFold 2, algorithm 7 without
    gates).

    Inputs: ``query``, ``key``, ``value`` [samples, heads, residues, width]; ``bias`` [samples,
    heads, residues, residues]. Output: [samples, residues, heads width].
    """

    name = "pair-bias-attention"
    differentiable = ("query", "key", "value", "bias")

    heads: int
    width: int

    def arguments(self, sizes: Sizes) -> dict[str, Drawn]:
        """Normal numbers."""
        shape = sizes["samples"], self.heads, sizes["residues"]
        drawn = {name: Drawn((*shape, self.width)) for name in ("query", "key", "value")}
        return {**drawn, "bias": Drawn((*shape, shape[-1]))}

    def reference(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """Softmax of products, every logit written out."""
        import torch

        logits = torch.einsum("bhic,bhjc->bhij", query, key) / self.width**0.5 + bias
        return torch.einsum("bhij,bhjc->bihc", logits.softmax(-1), value).flatten(2)

    def passes(self, sizes: Sizes, itemsize: int) -> tuple[Costs, ...]:
        """Query, key, value and output are a head's width each."""
        rows = sizes["samples"] * sizes["residues"] * self.heads
        return attention_passes(
            itemsize,
            rows,
            sizes["residues"],
            self.width,
            self.width,
            arguments=3 * self.width,
            output=self.width,
        )


def attention_passes(
    itemsize: int,
    rows: int,
    residues: int,
    query: int,
    value: int,
    *,
    arguments: int,
    output: int,
    fixed: int = 0,
) -> tuple[Costs, ...]:
    """The passes of ``rows`` = samples * residues * heads queries; for each so many numbers of
    ``arguments`` go in, a row of the bias beside them, and of ``output`` come out; so many numbers
    are ``fixed``."""
    logits = rows * residues
    # Two products, and about five operations a logit for bias and softmax.
    return bilinear_passes(
        itemsize,
        rows * arguments + logits,
        rows * output,
        2 * logits,
        logits * (2 * query + 2 * value + 5),
        itemsize * fixed,
    )


CASES = (
    Case(
        "pair-bias-attention-64",
        PairBiasAttention(8, 16),
        {"samples": 8, "residues": 64},
        1,
        "the flow task's small networks: 8 heads of 16, 64 residues",
        quick=True,
    ),
    Case(
        "pair-bias-attention-256",
        PairBiasAttention(12, 64),
        {"samples": 1, "residues": 256},
        1,
        "Proteina: 768 features in 12 heads, 256 residues (2503.00710)",
    ),
)
