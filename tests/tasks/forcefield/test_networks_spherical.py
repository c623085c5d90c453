"""The tensor-product convolution against e3nn, and the network's parity."""

import pytest
import torch
from e3nn import o3
from molecules import call, molecules

from equivbench.pairs.forcefield import TENSOR_PRODUCT
from equivbench.symmetry.rotations import random_rotations
from equivbench.tasks.forcefield.networks.nequip import build
from equivbench.tasks.forcefield.networks.spherical import Convolution, coupling_paths

DEV = TENSOR_PRODUCT.arms[0].presets["dev"].config


def test_paths_are_those_of_the_triangle_rule() -> None:
    assert len(coupling_paths(2, 2, 2, parity=True)) == 11
    assert len(coupling_paths(2, 2, 2, parity=False)) == 15
    assert [(p.source, p.edge, p.target) for p in coupling_paths(0, 2, 2, parity=True)] == [(0, 0, 0), (0, 1, 1), (0, 2, 2)]


@pytest.mark.parametrize("parity", [True, False])
def test_the_convolution_is_e3nns_uvu_product_summed_over_neighbours(parity: bool) -> None:
    torch.manual_seed(0)
    channels, atoms, edges, lmax = 5, 7, 40, 2
    paths = coupling_paths(lmax, lmax, lmax, parity=parity)
    sign = -1 if parity else 1
    irreps_in = o3.Irreps([(channels, (l, sign**l)) for l in range(lmax + 1)])
    irreps_edge = o3.Irreps([(1, (l, sign**l)) for l in range(lmax + 1)])
    irreps_out = o3.Irreps([(channels, (path.target, sign**path.target)) for path in paths])
    product = o3.TensorProduct(
        irreps_in,
        irreps_edge,
        irreps_out,
        [(path.source, path.edge, number, "uvu", True) for number, path in enumerate(paths)],
        shared_weights=False,
        internal_weights=False,
        path_normalization="element",
    ).double()
    x = [torch.randn(atoms, 2 * l + 1, channels, dtype=torch.float64) for l in range(lmax + 1)]
    vectors = torch.randn(edges, 3, dtype=torch.float64)
    harmonics = o3.spherical_harmonics(irreps_edge, vectors, normalize=True, normalization="component")
    weights = torch.randn(edges, len(paths), channels, dtype=torch.float64)
    edge_index = torch.randint(atoms, (2, edges))

    ours = Convolution(paths)(x, harmonics, weights, edge_index)

    flat = torch.cat([one.transpose(1, 2).flatten(1) for one in x], dim=1)
    messages = product(flat[edge_index[0]], harmonics, weights.flatten(1))
    summed = torch.zeros(atoms, irreps_out.dim, dtype=torch.float64).index_add(0, edge_index[1], messages)
    for number, (path, where) in enumerate(zip(paths, irreps_out.slices(), strict=True)):
        theirs = summed[:, where].unflatten(1, (channels, 2 * path.target + 1)).transpose(1, 2)
        # e3nn's Clebsch-Gordan coefficients are float32 at heart; sums of up to ten products of order 1.
        torch.testing.assert_close(ours[number], theirs, atol=1e-5, rtol=1e-5)


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
