"""Networks of other packages, registered as arms against ours, with their authors' code: ViSNet of
torch_geometric and PaiNN of schnetpack against our PaiNN, NequIP of nequip against our NequIP.
``tools/train_against.py`` trains them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

import equivbench as eb
from equivbench.registry import PAIRS
from equivbench.specs import PairSpec
from equivbench.tasks.forcefield.elements import SYMBOLS

CUTOFF = 5.0
ELEMENTS = 100
"""nequip has a row of weights for each element that it is told of; so many are more than any data
set here has."""
RATES = (0.001, 0.002, 0.004, 0.008, 0.016)
"""Learning rates that the others are tried at; ours is tuned."""
UNTUNED: Mapping[str, Any] = {"tuned_at": None, "tuning_log_sha256": None}
VISNET: Mapping[str, Any] = {"hidden_channels": 32, "num_layers": 3, "num_rbf": 20, "num_heads": 4}
"""Layers and basis functions of our PaiNN at ``small``, as many channels."""
PAINN: Mapping[str, Any] = {"n_atom_basis": 32, "n_interactions": 3}
NEQUIP: Mapping[str, Any] = {
    "r_max": 4.0,
    "num_layers": 3,
    "l_max": 2,
    "num_features": 32,
    "parity": False,
    "radial_mlp_depth": 1,
    "radial_mlp_width": 32,
    "avg_num_neighbors": 12.0,
}
"""Layers, degrees, channels and radial network of our NequIP at ``small``."""
OTHERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "visnet": ("forcefield/vector", VISNET),
    "schnetpack-painn": ("forcefield/vector", PAINN),
    "nequip-nequip": ("forcefield/tensor-product-parameters", NEQUIP),
}
"""By model: the pair whose equivariant arm it is trained against, and its config."""


class _GivenEdges(nn.Module):
    """In the place of ViSNet's neighbour search, for which torch_geometric needs a compiled
    package: the edges of the batch, and an edge of each atom with itself, as its own has them."""

    edge_index: Tensor

    def forward(self, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(edges [2, edges + atoms], lengths, vectors)."""
        atoms = torch.arange(len(pos), device=pos.device)
        source, target = self.edge_index
        vectors = pos[source] - pos[target]
        lengths = torch.cat([vectors.norm(dim=1), pos.new_zeros(len(pos))])
        edges = torch.cat([self.edge_index, torch.stack([atoms, atoms])], dim=1)
        return edges, lengths, torch.cat([vectors, pos.new_zeros(len(pos), 3)])


class ViSNet(nn.Module):
    """ViSNet (2210.16518) as torch_geometric has it, which gives energies alone."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        from torch_geometric.nn.models import ViSNet as Published

        self.network = Published(**config, cutoff=CUTOFF)
        self.edges = self.network.representation_model.distance = _GivenEdges()

    def forward(
        self, z: Tensor, pos: Tensor, batch: Tensor, edge_index: Tensor
    ) -> dict[str, Tensor]:
        """Energies [molecules] eV; the forces beside them are zero, for runs on conservative forces
        alone."""
        self.edges.edge_index = edge_index
        energy, _ = self.network(z, pos, batch)
        return {"energy": energy.flatten(), "forces": torch.zeros_like(pos)}


class SchNetPackPaiNN(nn.Module):
    """PaiNN (2102.03150) as schnetpack has it, which gives energies alone."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        from torch.utils.data import dataloader

        # schnetpack 2.1.1 imports this name, which torch 2.13 no longer has, for an annotation.
        if not hasattr(dataloader, "T_co"):
            dataloader.T_co = TypeVar("T_co")  # type: ignore[attr-defined]
        import schnetpack.atomistic as atomistic
        import schnetpack.representation as representation
        from schnetpack.model import NeuralNetworkPotential
        from schnetpack.nn.cutoff import CosineCutoff
        from schnetpack.nn.radial import GaussianRBF

        radial = GaussianRBF(n_rbf=20, cutoff=CUTOFF)
        self.network = NeuralNetworkPotential(
            representation=representation.PaiNN(
                radial_basis=radial, cutoff_fn=CosineCutoff(CUTOFF), **config
            ),
            input_modules=[atomistic.PairwiseDistances()],
            output_modules=[atomistic.Atomwise(n_in=config["n_atom_basis"], output_key="energy")],
        )

    def forward(
        self, z: Tensor, pos: Tensor, batch: Tensor, edge_index: Tensor
    ) -> dict[str, Tensor]:
        """As :meth:`ViSNet.forward`."""
        found = self.network(
            {
                "_positions": pos,
                "_atomic_numbers": z,
                "_idx_i": edge_index[1],
                "_idx_j": edge_index[0],
                "_idx_m": batch,
                "_n_atoms": torch.bincount(batch),
                "_offsets": pos.new_zeros(edge_index.shape[1], 3),
            }
        )
        return {"energy": found["energy"].flatten(), "forces": torch.zeros_like(pos)}


class NequIP(nn.Module):
    """NequIP (2101.03164) as nequip has it, its energies alone and nothing of it compiled."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        from nequip.model import NequIPGNNModel
        from nequip.utils.global_state import set_global_state

        before = torch.get_default_dtype()
        set_global_state()
        try:
            self.network = NequIPGNNModel(
                # It would begin from the same weights in every run.
                seed=int(torch.randint(2**31, ())),
                model_dtype="float32",
                type_names=SYMBOLS[:ELEMENTS],
                compile_mode="eager",
                do_derivatives=False,
                # Energies here are what is left of them beside the atoms' own.
                per_type_energy_scales=1.0,
                per_type_energy_shifts=0.0,
                **config,
            )
        finally:
            torch.set_default_dtype(before)

    def forward(
        self, z: Tensor, pos: Tensor, batch: Tensor, edge_index: Tensor
    ) -> dict[str, Tensor]:
        """As :meth:`ViSNet.forward`."""
        found = self.network(
            {
                "pos": pos,
                "atom_types": z - 1,
                "edge_index": edge_index.flip(0),
                "batch": batch,
                "num_atoms": torch.bincount(batch),
            }
        )
        return {"energy": found["total_energy"].flatten(), "forces": torch.zeros_like(pos)}


@eb.register_model("visnet", task="forcefield", symmetry="o3", requires={"edge_index": CUTOFF})
def visnet(config: Mapping[str, Any]) -> nn.Module:
    """Config: as ``torch_geometric.nn.models.ViSNet`` takes it."""
    return ViSNet(**config)


@eb.register_model(
    "schnetpack-painn", task="forcefield", symmetry="o3", requires={"edge_index": CUTOFF}
)
def schnetpack_painn(config: Mapping[str, Any]) -> nn.Module:
    """Config: as ``schnetpack.representation.PaiNN`` takes it."""
    return SchNetPackPaiNN(**config)


@eb.register_model("nequip-nequip", task="forcefield", symmetry="o3", requires={"edge_index": 4.0})
def nequip_nequip(config: Mapping[str, Any]) -> nn.Module:
    """Config: as ``nequip.model.NequIPGNNModel`` takes it."""
    return NequIP(**config)


def pair_name(model: str, rate: float, compiled: bool = False) -> str:
    """What the pair of ``model`` at a learning rate is called."""
    return f"against-{model}-{rate:g}" + "-compiled" * compiled


def _against(model: str, rate: float, compiled: bool) -> PairSpec:
    """Our network as it is tuned, and ``model`` with the other arm's recipe but for its learning
    rate, and for whether it goes through torch.compile."""
    ours, config = OTHERS[model]
    name = pair_name(model, rate, compiled)
    pair = PAIRS.get(ours).with_model(model, name=name, config=config)
    equivariant, theirs = pair.contestants
    changes = {**UNTUNED, "learning_rate": rate, "compile": compiled}
    presets = {
        size: replace(preset, recipe=replace(preset.recipe, **changes))
        for size, preset in theirs.presets.items()
    }
    return replace(pair, arms=(equivariant, replace(theirs, presets=presets)))


for _choice in product(OTHERS, RATES, (False, True)):
    eb.register_pair(_against(*_choice))
