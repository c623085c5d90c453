"""Small made-up molecules for the tests of networks, as inputs to a model."""

from collections.abc import Mapping

import torch
from torch import Tensor

from equivbench.kernels.neighbours import edges_within

ATOMS = (9, 14, 6, 10)
# Four: with three, torch.compile would take the number of molecules for the number of coordinates.


def molecules(dtype: torch.dtype = torch.float64, seed: int = 0) -> dict[str, Tensor]:
    """z, pos, batch and n_atoms of four molecules at about the density of a real one; no two atoms
    coincide."""
    generator = torch.Generator().manual_seed(seed)
    n_atoms = torch.tensor(ATOMS)
    total = int(n_atoms.sum())
    # Points of a jittered grid of 1.3 A: never closer than 0.7 A, no symmetry.
    grid = torch.cartesian_prod(*[torch.arange(3.0)] * 3)
    cells = torch.cat([torch.randperm(27, generator=generator)[:count] for count in ATOMS])
    pos = 1.3 * grid[cells] + 0.6 * torch.rand(total, 3, generator=generator) - 0.3
    z = torch.tensor([1, 6, 7, 8, 16])[torch.randint(5, (total,), generator=generator)]
    return {
        "z": z,
        "pos": pos.to(dtype),
        "batch": torch.repeat_interleave(torch.arange(len(ATOMS)), n_atoms),
        "n_atoms": n_atoms,
    }


def inputs_for(model: torch.nn.Module, sample: dict[str, Tensor]) -> dict[str, Tensor]:
    """``sample`` with the edges that ``model.requires``."""
    requires: Mapping[str, float] = model.requires  # type: ignore[assignment]
    most = requires.get("max_neighbours")
    edges = edges_within(
        sample["pos"], sample["batch"], requires["edge_index"], None if most is None else int(most)
    )
    return {**sample, "edge_index": edges}


def call(model: torch.nn.Module, sample: dict[str, Tensor]) -> dict[str, Tensor]:
    """The model's outputs on ``sample``."""
    return model(**inputs_for(model, sample))


def alone(sample: dict[str, Tensor], molecule: int) -> dict[str, Tensor]:
    """One molecule of ``sample`` as a batch of its own."""
    mine = sample["batch"] == molecule
    return {
        "z": sample["z"][mine],
        "pos": sample["pos"][mine],
        "batch": torch.zeros(int(mine.sum()), dtype=torch.int64),
        "n_atoms": sample["n_atoms"][molecule : molecule + 1],
    }
