"""Training steps of schnetpack's PaiNN or SchNet on the 16-benzene batch, for
``compare_reference.py``; runs where schnetpack is.

``python reference_schnetpack.py '{"threads": 1, "model": "PaiNN", "n_atom_basis": 64,
"n_interactions": 3}'``.
"""

from __future__ import annotations

import json
import sys

import schnetpack.atomistic as atomistic
import schnetpack.representation as representation
import torch
from benzenes import benzene_batch, targets
from schnetpack.model import NeuralNetworkPotential
from schnetpack.nn.cutoff import CosineCutoff
from schnetpack.nn.radial import GaussianRBF
from timing_worker import serve

config = json.loads(sys.argv[1])
torch.set_num_threads(int(config.pop("threads")))
cutoff = 5.0
width = config["n_atom_basis"]
network = getattr(representation, config.pop("model"))(
    radial_basis=GaussianRBF(n_rbf=20, cutoff=cutoff), cutoff_fn=CosineCutoff(cutoff), **config
)
model = NeuralNetworkPotential(
    representation=network,
    input_modules=[atomistic.PairwiseDistances()],
    output_modules=[atomistic.Atomwise(n_in=width, output_key="energy"), atomistic.Forces()],
)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
pos, z, batch, edge_index = benzene_batch(cutoff=cutoff)
energy, forces = targets(16, len(z))
data = {
    "_positions": pos,
    "_atomic_numbers": z,
    "_idx_i": edge_index[1],
    "_idx_j": edge_index[0],
    "_idx_m": batch,
    "_n_atoms": torch.full((16,), 12),
    "_offsets": torch.zeros(edge_index.shape[1], 3),
    "_cell": torch.zeros(16, 3, 3),
    "_pbc": torch.zeros(48, dtype=torch.bool),
}


def step() -> None:
    """One training step on energies and energy-derived forces."""
    out = model({name: value.clone() for name, value in data.items()})
    loss = (out["forces"] - forces).square().mean() + (out["energy"] - energy[:, 0]).square().mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


serve(
    step, {"parameters": sum(p.numel() for p in model.parameters()), "edges": edge_index.shape[1]}
)
