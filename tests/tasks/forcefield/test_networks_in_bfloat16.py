"""Every force-field network under autocast to bfloat16: the energy of a large molecule has the
rounding of its atoms' energies, and none of their sum."""

from __future__ import annotations

import pytest
import torch
from molecules import inputs_for, molecules
from seen_sums import SeenSums
from test_forcefield_networks import NAMES, build
from torch import Tensor, nn

COPIES = 24
"""Of a few molecules, side by side as one of nearly a thousand atoms."""


def large(model: nn.Module) -> dict[str, Tensor]:
    """z, pos and edges of that molecule. Networks see atoms along edges alone, so the copies may
    lie in one place."""
    few = inputs_for(model, molecules(torch.float32))
    edges = few["edge_index"]
    shifts = torch.arange(COPIES).repeat_interleave(edges.shape[1]) * len(few["z"])
    return {
        "z": few["z"].repeat(COPIES),
        "pos": few["pos"].repeat(COPIES, 1),
        "edge_index": edges.repeat(1, COPIES) + shifts,
    }


def energies(model: nn.Module, inputs: dict[str, Tensor], batch: Tensor) -> Tensor:
    """Of the molecules that ``batch`` makes of the atoms."""
    with torch.no_grad():
        found: Tensor = model(**inputs, batch=batch, n_atoms=torch.bincount(batch))["energy"]
    return found


# torch's, of its own norms under autocast.
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
@pytest.mark.parametrize("name", NAMES)
def test_the_energy_of_a_large_molecule_has_the_rounding_of_its_atoms_alone(name: str) -> None:
    model = build(name, torch.float32)
    inputs = large(model)
    atoms = torch.arange(len(inputs["z"]))
    whole = torch.zeros_like(atoms)
    with torch.autocast("cpu", torch.bfloat16), SeenSums() as seen:
        terms, energy = (energies(model, inputs, batch) for batch in (atoms, whole))
    exact_terms, exact = (energies(model, inputs, batch) for batch in (atoms, whole))
    assert energy.dtype == torch.float32
    assert not seen.dtypes & {torch.bfloat16, torch.float16}, "messages are added up so too"
    # Terms are those of bfloat16, or autocast did nothing.
    assert not torch.equal(terms, exact_terms)
    # A rounding of float32 at every addition.
    rounding = len(atoms) * 2.0**-24 * float(terms.abs().sum() + exact_terms.abs().sum())
    assert abs(float(energy) - float(terms.double().sum())) <= rounding
    moved = float((terms.double() - exact_terms.double()).abs().sum())
    assert abs(float(energy) - float(exact)) <= moved + 2 * rounding
