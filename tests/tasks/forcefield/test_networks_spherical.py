"""NequIP's parity."""

import torch
from molecules import call, molecules

from equivbench.symmetry.rotations import random_rotations
from equivbench.tasks.forcefield.networks.nequip import NequIPLayer, build
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


def test_messages_are_scaled_by_the_number_of_neighbours_as_published() -> None:
    """sum over neighbours of the product with weights / sqrt(neighbours), wherever that stands."""
    torch.manual_seed(3)
    model, sample = build(DEV).double(), molecules()
    found = call(model, sample)["forces"].detach()
    with torch.no_grad():
        for layer in model.layers:
            assert isinstance(layer, NequIPLayer)
            assert layer.scale == DEV["neighbours"] ** -0.5
            layer.get_parameter("weights.4.weight").mul_(layer.scale)
            layer.scale = 1.0
    expected = call(model, sample)["forces"].detach()
    # float64 sums of terms that were rounded once more or less.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))
