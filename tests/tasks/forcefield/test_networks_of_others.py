"""The networks of other packages that ours are trained against: given our edges they keep the
symmetry that they have, and are arms that a run can train."""

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from benzenes import benzene_batch

from equivbench.registry import MODELS, PAIRS
from equivbench.symmetry.rotations import random_rotations
from equivbench.tasks.forcefield.conservative import ConservativeForces

PACKAGES = {
    "visnet": "torch_geometric",
    "schnetpack-painn": "schnetpack",
    "nequip-nequip": "nequip",
}


@pytest.fixture(scope="module")
def others() -> Iterator[ModuleType]:
    """The module that registers them, which other tests do not see."""
    kept = [(registry, registry.snapshot()) for registry in (MODELS, PAIRS)]
    yield importlib.import_module("others")
    sys.modules.pop("others")
    for registry, entries in kept:
        registry.restore(entries)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", PACKAGES)
def test_conservative_forces_turn_with_the_molecule_and_add_up_to_nothing(
    model: str, others: ModuleType
) -> None:
    pytest.importorskip(PACKAGES[model])
    pair = PAIRS.get(f"forcefield/against-{model}-{others.RATES[0]:g}")
    theirs = pair.arm("augmented")
    assert theirs.model == model
    torch.manual_seed(0)
    # nequip's networks keep the precision that they are made in.
    dtype, rounding = (torch.float32, 1e-4) if model == "nequip-nequip" else (torch.float64, 1e-10)
    network = MODELS.get(model).build(theirs.presets["small"].config).to(dtype)  # type: ignore[operator]
    forces = ConservativeForces(network)
    pos, z, batch, edge_index = benzene_batch(cutoff=others.CUTOFF)
    pos = pos.to(dtype) + 0.1 * torch.randn(pos.shape, dtype=dtype)
    (turn,) = random_rotations(1, dtype=torch.float64).to(dtype)

    def of(positions: torch.Tensor) -> dict[str, torch.Tensor]:
        return forces(z=z, pos=positions, batch=batch, edge_index=edge_index)  # type: ignore[no-any-return]

    found, turned = of(pos), of(pos @ turn.T)
    assert found["forces"].abs().max() > 1e-3
    assert torch.allclose(turned["forces"], found["forces"] @ turn.T, atol=rounding)
    assert torch.allclose(turned["energy"], found["energy"], atol=rounding)
    assert found["energy"].shape == (int(batch.max()) + 1,)
    total = torch.zeros_like(found["forces"][: len(found["energy"])])
    assert total.index_add(0, batch, found["forces"]).abs().max() < rounding


def test_each_rate_is_a_pair_of_its_own(others: ModuleType) -> None:
    for model in PACKAGES:
        pairs = [PAIRS.get(f"forcefield/against-{model}-{rate:g}") for rate in others.RATES]
        recipes = [pair.arm("augmented").presets["small"].recipe for pair in pairs]
        assert [recipe.learning_rate for recipe in recipes] == [*others.RATES]
        assert {recipe.tuned_at for recipe in recipes} == {None}
        ours = PAIRS.get(others.OTHERS[model][0]).arm("equivariant")
        assert all(pair.arm("equivariant") == ours for pair in pairs)
