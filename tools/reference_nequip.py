"""Training steps of nequip on the 16-benzene batch, for ``compare_reference.py``; runs where nequip
is installed.

``python reference_nequip.py '{"threads": 1, "compile_mode": "compile", "num_layers": 3, ...}'``:
keywords of ``NequIPGNNModel``.
"""

from __future__ import annotations

import json
import sys

import torch
from benzenes import benzene_batch, targets
from nequip.model import NequIPGNNModel
from nequip.utils.global_state import set_global_state
from timing_worker import serve

config = json.loads(sys.argv[1])
torch.set_num_threads(int(config.pop("threads")))
set_global_state()
pos, z, batch, edge_index = benzene_batch(cutoff=config["r_max"])
model = NequIPGNNModel(
    seed=0,
    model_dtype="float32",
    type_names=["H", "C"],
    avg_num_neighbors=edge_index.shape[1] / len(z),
    **config,
)
model.train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
energy, forces = targets(16, len(z))
data = {
    "pos": pos,
    "atom_types": (z == 6).long(),
    "edge_index": edge_index.flip(0),  # nequip: row 0 the centre, row 1 the neighbour
    "batch": batch,
    "num_atoms": torch.full((16,), 12),
}


def step() -> None:
    """One training step on energies and energy-derived forces."""
    out = model({name: value.clone() for name, value in data.items()})
    loss = (out["forces"] - forces).square().mean() + (out["total_energy"] - energy).square().mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


serve(
    step, {"parameters": sum(p.numel() for p in model.parameters()), "edges": edge_index.shape[1]}
)
