"""eSEN's parts: handedness in the imaginary parts of its maps, and edges along the polar axis like
all others."""

from __future__ import annotations

import pytest
import torch
from molecules import call, inputs_for, molecules
from torch import Tensor, nn

from equivbench.symmetry.rotations import random_rotations
from equivbench.tasks.forcefield.conservative import ConservativeForces
from equivbench.tasks.forcefield.networks.esen import ESEN, DegreeNorm, SO2Maps, build
from equivbench.tasks.forcefield.pairs import SO2_CONVOLUTION

DEV = SO2_CONVOLUTION.arms[0].presets["dev"].config
LMAX, MMAX = 3, 2


@pytest.fixture
def network() -> ESEN:
    torch.manual_seed(3)
    return build({**DEV, "lmax": LMAX, "mmax": MMAX}).double()


def rotation() -> Tensor:
    return random_rotations(1, generator=torch.Generator().manual_seed(5), dtype=torch.float64)[0]


def test_it_is_handed_by_the_imaginary_parts_of_its_maps_alone(network: ESEN) -> None:
    sample = molecules()
    mirrored = {**sample, "pos": -sample["pos"]}
    stands, other = call(network, sample)["forces"], call(network, mirrored)["forces"]
    size = stands.abs().max()
    assert (other + stands).abs().max() > 1e-4 * size  # far above rounding
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, SO2Maps):
                for _, imaginary in module.turned:
                    imaginary.zero_()
    first, second = call(network, sample), call(network, mirrored)
    assert (second["forces"] + first["forces"]).abs().max() < 1e-10 * size  # float64 rounding
    torch.testing.assert_close(second["energy"], first["energy"])


def cross() -> dict[str, Tensor]:
    """An atom with neighbours along all axes, two of them polar, and one more away from them."""
    return {
        "z": torch.tensor([6, 1, 7, 8, 1, 16, 9, 1]),
        "pos": torch.tensor(
            [
                [0.0, 0.0, 0.0],
                *([0.0, 1.1, 0.0], [0.0, -1.2, 0.0], [0.0, 0.0, 1.3]),
                *([0.0, 0.0, -1.4], [1.5, 0.0, 0.0], [-1.6, 0.0, 0.0], [0.9, 0.8, -0.7]),
            ],
            dtype=torch.float64,
        ),
        "batch": torch.zeros(8, dtype=torch.int64),
        "n_atoms": torch.tensor([8]),
    }


@pytest.mark.parametrize("conservative", [False, True], ids=["direct", "conservative"])
def test_edges_along_the_polar_axis_are_like_all_others(network: ESEN, conservative: bool) -> None:
    """Forces turn with the molecule, and what they teach the weights does not turn at all."""
    model: nn.Module = ConservativeForces(network) if conservative else network
    matrix = rotation()
    found: list[tuple[Tensor, dict[str, Tensor]]] = []
    for turn in (torch.eye(3, dtype=torch.float64), matrix):
        sample = cross()
        inputs = inputs_for(network, {**sample, "pos": sample["pos"] @ turn.T})
        network.zero_grad()
        forces = model(**inputs)["forces"]
        forces.square().sum(-1).square().sum().backward()
        gradients = {
            name: each.grad.clone()
            for name, each in network.named_parameters()
            if each.grad is not None
        }
        found.append((forces.detach() @ turn, gradients))
    (stands, taught), (turned, again) = found
    assert stands.abs().max() > 1e-3
    # float64 through two layers, and through second derivatives.
    torch.testing.assert_close(turned, stands, atol=1e-10, rtol=1e-9)
    assert taught.keys() == again.keys()
    for name, gradient in taught.items():
        torch.testing.assert_close(again[name], gradient, atol=1e-10, rtol=1e-8, msg=name)


def test_features_are_normalised_whatever_their_size_and_whichever_way_they_turn() -> None:
    norm = DegreeNorm(5, LMAX).double()
    x = torch.randn(4, (LMAX + 1) ** 2, 5, dtype=torch.float64)
    out = norm(x)
    torch.testing.assert_close(norm(1e3 * x), out, rtol=1e-6, atol=1e-6)  # the 1e-6 of the root
    per_degree = [
        part.square().sum(1).mean(-1) / part.shape[1]
        for part in out.split([2 * l + 1 for l in range(LMAX + 1)], dim=1)
    ]
    mean = torch.stack(per_degree).mean(0)
    torch.testing.assert_close(mean, torch.ones_like(mean), rtol=1e-4, atol=0.0)


def test_in_float32_it_turns_to_rounding() -> None:
    torch.manual_seed(3)
    network, sample, matrix = build(DEV), molecules(torch.float32), rotation().float()
    stands = call(network, sample)["forces"]
    turned = call(network, {**sample, "pos": sample["pos"] @ matrix.T})["forces"]
    # Measured: 4e-7, six unit roundoffs of the largest force.
    assert (turned - stands @ matrix.T).abs().max() < 1e-5 * stands.abs().max()
