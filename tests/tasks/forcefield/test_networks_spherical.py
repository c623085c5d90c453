"""NequIP's parity."""

import torch
from molecules import call, molecules

from equivbench.symmetry.rotations import random_rotations
from equivbench.tasks.forcefield.networks.nequip import build
from equivbench.tasks.forcefield.pairs import TENSOR_PRODUCT

DEV = TENSOR_PRODUCT.arms[0].presets["dev"].config


def test_without_parity_rotations_hold_and_reflections_do_not() -> None:
    torch.manual_seed(3)
    model, sample = build({**DEV, "parity": False}).double(), molecules()
    matrix = random_rotations(1, generator=torch.Generator().manual_seed(5), dtype=torch.float64)[0]
    out = call(model, sample)["forces"].detach()
    size = float(out.abs().max())
    turned = call(model, {**sample, "pos": sample["pos"] @ matrix.T})["forces"].detach()
    mirrored = call(model, {**sample, "pos": -sample["pos"]})["forces"].detach()
    assert float((turned - out @ matrix.T).abs().max()) < 1e-10 * size  # float64 rounding
    assert float((mirrored + out).abs().max()) > 1e-4 * size  # the paths of odd parity are in use
