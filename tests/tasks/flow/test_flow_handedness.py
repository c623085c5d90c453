"""Mirrored backbones with mirrored noise: the same loss in an O(3) network, another where a network
knows a hand."""

from __future__ import annotations

import pytest
import torch
from chains import Chains, backbones
from torch import Tensor, nn

from equivbench.studies.handedness.measuring import Handedness, handedness
from equivbench.tasks.flow.networks.features import ODD
from equivbench.tasks.flow.networks.vector_head import build
from equivbench.tasks.flow.task import FlowMatching, centred

TINY = {
    "dim": 16,
    "layers": 1,
    "heads": 2,
    "expansion": 2,
    "pair": 8,
    "time": 8,
    "bins": 8,
    "vectors": 4,
    "products": 4,
}
SPLIT = Chains(tuple(chain for seed in range(4) for chain in backbones(seed).chains))


class NoVolumes(nn.Module):
    """In place of the invariants that a mirror changes."""

    def forward(self, x_t: Tensor, x_sc: Tensor, mask: Tensor, residue: Tensor) -> Tensor:
        return x_t.new_zeros(*mask.shape, ODD)


class NoAxialVectors(nn.Module):
    """In place of the cross products."""

    def forward(self, features: Tensor, vectors: Tensor) -> Tensor:
        return torch.zeros_like(vectors[:, :, 0])


def network(odd: bool) -> nn.Module:
    """The vector-head network with random weights; without its parity-odd parts it is one of
    O(3)."""
    torch.manual_seed(0)
    model = build({**TINY, "data_scale": 0.8})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    if not odd:
        model.network.odd, model.network.axial = NoVolumes(), NoAxialVectors()  # type: ignore[assignment, union-attr]
    return model


class RightHanded(nn.Module):
    """Predicts t x_t for a chain that twists to the right, and nothing for one that does not."""

    def forward(
        self, x_t: Tensor, x_sc: Tensor, t: Tensor, mask: Tensor, residue: Tensor
    ) -> dict[str, Tensor]:
        bond = x_t[:, 1:] - x_t[:, :-1]
        volumes = (bond[:, :-2] * torch.linalg.cross(bond[:, 1:-1], bond[:, 2:])).sum(-1)
        twist = volumes.masked_fill(~mask[:, 3:], 0.0).sum(1)
        return {"x1": x_t * torch.where(twist > 0, t, 0.0)[:, None, None]}


def judged(model: nn.Module) -> Handedness:
    return handedness(model, FlowMatching(), SPLIT, requires={})


def test_an_o3_network_has_the_same_loss_on_both_sides_at_every_time() -> None:
    found = judged(network(odd=False))
    assert not found.told_apart()
    # Every operation is even or odd in the positions, and signs do not round.
    assert found.ratio == pytest.approx(1, rel=1e-9)
    assert len(found.by) == 7
    for comparison in found.by.values():
        assert comparison.ratio == pytest.approx(1, rel=1e-9)
    assert judged(network(odd=True)).ratio != pytest.approx(1, rel=1e-4)


def test_a_model_that_prefers_right_handed_chains_is_found_out() -> None:
    found = judged(RightHanded())
    assert found.told_apart()
    low, _ = found.interval()
    assert low > 1 + found.resolution(found)
    assert "t=0.99" in found.told_apart()
    assert found.ratio > 1
    # At the end of the flow it is the chain itself that is judged: nearly right, and not at all.
    assert found.by["t=0.99"].ratio > 10


def test_each_side_feeds_on_its_own_first_prediction() -> None:
    class Repeats(nn.Module):
        """Gives back what it is fed; the first prediction has an axial part."""

        def forward(
            self, x_t: Tensor, x_sc: Tensor, t: Tensor, mask: Tensor, residue: Tensor
        ) -> dict[str, Tensor]:
            step = (x_t.roll(-1, 1) - x_t).masked_fill(~mask[..., None], 0.0)
            first = centred(x_t + torch.linalg.cross(step, step.roll(-1, 1)), mask)
            return {"x1": x_sc if x_sc.any() else first}

    # Fed the mirror image of the other side's prediction, the mirrored side would have the very
    # loss of the other.
    assert abs(judged(Repeats()).ratio - 1) > 1e-3
