"""Training steps of our networks on the 16-benzene batch, energy-derived forces, for
``compare_reference.py``.

``python reference_equivbench.py '{"threads": 1, "network": "painn", "compile": false, "config":
{...}}'``: a module of ``equivbench.tasks.forcefield.networks`` and the config that its ``build``
takes.
"""

from __future__ import annotations

import importlib
import json
import sys

import torch
from benzenes import benzene_batch, targets
from timing_worker import serve

from equivbench.tasks.forcefield.conservative import ConservativeForces

options = json.loads(sys.argv[1])
torch.set_num_threads(int(options["threads"]))
network = importlib.import_module(
    f"equivbench.tasks.forcefield.networks.{options['network']}"
).build(options["config"])
pos, z, batch, edge_index = benzene_batch(cutoff=5.0)
energy, forces = targets(16, len(z))
data = {
    "z": z,
    "pos": pos,
    "batch": batch,
    "edge_index": edge_index,
    "n_atoms": torch.full((16,), 12),
}
model = ConservativeForces(network)
parameters = list(network.parameters())
optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)


def gradients() -> list[torch.Tensor]:
    """Parameter gradients of the loss on energies and energy-derived forces."""
    out = model(**data)
    loss = (out["forces"] - forces).square().mean() + (out["energy"] - energy[:, 0]).square().mean()
    return list(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))


error = 0.0
if options["compile"]:
    eager = gradients()
    model.compile(fullgraph=True, dynamic=True)
    # What is timed must be right: the largest difference to eager, relative to the whole gradient.
    difference = torch.stack(
        [(a - b).norm() for a, b in zip(gradients(), eager, strict=True)]
    ).norm()
    error = float(difference / torch.stack([g.norm() for g in eager]).norm())


def step() -> None:
    """One training step."""
    for parameter, gradient in zip(parameters, gradients(), strict=True):
        parameter.grad = gradient
    optimizer.step()


serve(
    step,
    {
        "parameters": sum(p.numel() for p in parameters),
        "edges": edge_index.shape[1],
        "gradient_error": error,
    },
)
