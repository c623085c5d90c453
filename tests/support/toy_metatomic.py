"""The energy of pairs of ``pair_energies`` in metatomic's format; importing this needs metatomic.

No postponed annotations here: TorchScript reads those of the model.
"""

from pathlib import Path
from typing import Dict, List, Optional  # noqa: UP035  TorchScript knows these

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import (
    AtomisticModel,
    ModelCapabilities,
    ModelMetadata,
    ModelOutput,
    System,
)


class PairModel(torch.nn.Module):
    def __init__(self, field: float = 0.0):
        super().__init__()
        self.field = field

    def forward(
        self,
        systems: List[System],  # noqa: UP006
        outputs: Dict[str, ModelOutput],  # noqa: UP006
        selected_atoms: Optional[Labels] = None,  # noqa: UP045
    ) -> Dict[str, TensorMap]:  # noqa: UP006
        energies: List[torch.Tensor] = []  # noqa: UP006
        for system in systems:
            pos, z = system.positions, system.types.to(system.positions.dtype)
            square = (pos[None] - pos[:, None]).square().sum(2)
            strength = z[None] * z[:, None] * torch.exp(-square)
            along = (pos[:, 0] - pos[:, 0].mean()).square().sum()
            energies.append((strength.sum() - strength.diagonal().sum()) / 2 + self.field * along)
        none: List[Labels] = []  # noqa: UP006
        numbers = torch.arange(len(systems), dtype=torch.int32).reshape(-1, 1)
        block = TensorBlock(
            values=torch.stack(energies).reshape(-1, 1),
            samples=Labels(["system"], numbers),
            components=none,
            properties=Labels(["energy"], torch.tensor([[0]])),
        )
        return {"energy": TensorMap(keys=Labels(["_"], torch.tensor([[0]])), blocks=[block])}


def pair_model(field: float = 0.0) -> AtomisticModel:
    """In eV and A, for the elements of ``pair_energies``; ``field`` (eV/A^2) pulls atoms to the
    plane through their mean across the first axis."""
    output = ModelOutput(unit="eV", sample_kind="system", explicit_gradients=[])
    capabilities = ModelCapabilities(
        outputs={"energy": output},
        atomic_types=[1, 6, 7, 8, 16],
        interaction_range=float("inf"),
        length_unit="angstrom",
        supported_devices=["cpu"],
        dtype="float64",
    )
    return AtomisticModel(PairModel(field).eval(), ModelMetadata(name="pairs"), capabilities)


def saved(folder: Path) -> Path:
    """The model as a file."""
    path = folder / "pairs.pt"
    pair_model().save(str(path))
    return path
