"""The transformer in frames of the cube: equivariant under the cube's rotations and no others, and
the plain transformer in every number but for the sharing of weights."""

from __future__ import annotations

import pytest
import torch
from molecules import call, molecules
from torch import Tensor, nn

from equivbench.symmetry.rotations import octahedral_rotations, random_rotations
from equivbench.tasks.forcefield.networks import transformer
from equivbench.tasks.forcefield.networks.platonic import (
    FRAMES,
    FrameNorm,
    Shared,
    build,
    frame_quotients,
)

CONFIG = {"features": 2, "heads": 1, "layers": 2, "radial": 6, "cutoff": 4.0, "neighbours": 8.0}
TWIN = {**CONFIG, "width": FRAMES * 2, "heads": FRAMES}
del TWIN["features"]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    made = build(CONFIG).double()
    for weight in made.parameters():
        nn.init.normal_(weight, std=0.3)
    return made


def turned(rotation: Tensor) -> dict[str, Tensor]:
    sample = molecules()
    return {**sample, "pos": sample["pos"] @ rotation.T}


def test_quotients_are_those_of_the_group() -> None:
    rotations, table = octahedral_rotations(torch.float64), frame_quotients()
    for g in range(FRAMES):
        assert torch.equal(rotations[table[g]], rotations[g].T @ rotations)
        assert sorted(table[g].tolist()) == list(range(FRAMES))


def test_it_turns_with_the_cube_and_with_nothing_else(network: nn.Module) -> None:
    stands = call(network, molecules())
    assert stands["forces"].abs().mean() > 1e-2
    for rotation in octahedral_rotations(torch.float64):
        found = call(network, turned(rotation))
        torch.testing.assert_close(found["forces"], stands["forces"] @ rotation.T)
        torch.testing.assert_close(found["energy"], stands["energy"])
    generator = torch.Generator().manual_seed(0)
    (other,) = random_rotations(1, generator=generator, dtype=torch.float64)
    moved = call(network, turned(other))["forces"]
    assert (moved - stands["forces"] @ other.T).abs().max() > 1e-3
    mirrored = call(network, turned(-torch.eye(3, dtype=torch.float64)))["forces"]
    assert (mirrored + stands["forces"]).abs().max() > 1e-3


def test_with_its_weights_written_out_the_plain_transformer_is_the_same(
    network: nn.Module,
) -> None:
    plain = transformer.build(TWIN).double()
    embedding = network.state_dict()["embedding.weight"].repeat(1, FRAMES)
    written: dict[str, Tensor] = {"embedding.weight": embedding}
    for name, module in network.named_modules():
        if isinstance(module, Shared):
            weight, bias = module.dense()
            written[f"{name}.weight"] = weight
            written[f"{name}.bias"] = weight.new_zeros(len(weight)) if bias is None else bias
        elif isinstance(module, FrameNorm):
            written[f"{name}.weight"] = module.weight.repeat(FRAMES)
            written[f"{name}.bias"] = module.bias.repeat(FRAMES)
    plain.load_state_dict(written)
    found = call(plain, molecules())
    for name, value in call(network, molecules()).items():
        torch.testing.assert_close(found[name], value)


def test_it_has_a_24th_of_the_weights() -> None:
    shared = sum(weight.numel() for weight in build(CONFIG).parameters())
    plain = transformer.build(TWIN)
    # The force head has no bias; a scalar's bias is one number in either.
    heads = sum(plain.state_dict()[f"{head}.2.bias"].numel() for head in ("force", "energy"))
    assert FRAMES * (shared - 1) == sum(each.numel() for each in plain.parameters()) - heads


def test_its_weights_are_drawn_as_those_of_the_plain_one() -> None:
    torch.manual_seed(0)
    config = {**CONFIG, "features": 8}
    for name, module in build(config).named_modules():
        if isinstance(module, Shared):
            weight, _ = module.dense()
            bound = weight.shape[1] ** -0.5
            assert 0.6 * bound < weight.abs().max() <= bound, name
