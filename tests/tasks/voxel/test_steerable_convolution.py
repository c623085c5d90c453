"""Our steerable convolution is e3nn's: the same kernels from the same weights."""

import math

import torch
from e3nn import o3
from e3nn.nn.models.v2104.voxel_convolution import Convolution

from equivbench.tasks.voxel.networks.steerable import SteerableConv3d


def test_kernels_are_e3nn_s() -> None:
    torch.manual_seed(0)
    irreps, out = o3.Irreps("3x0e + 2x1o + 1x2e"), o3.Irreps("2x0e + 1x1o + 2x2e")
    ours = SteerableConv3d(irreps, out, 2, 3.9, 3)
    theirs = Convolution(irreps, out, o3.Irreps.spherical_harmonics(2), 3.9, 3)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    weights = list(torch.split(ours.weight.data, ours.counts))
    by_pair = {}
    for target, copies_out in ours.copies_out.items():
        for source, copies in ours.copies.items():
            by_pair[target, source] = weights.pop(0).view(copies_out, copies, -1)
    # e3nn's weights are [radial, in copies, out copies] for each path; ours lie [out, in, path x
    # radial, then the voxel itself].
    tensor_product = theirs.tp
    seen = dict.fromkeys(by_pair, 0)
    flat = []
    for instruction in tensor_product.instructions:
        pair = (
            tensor_product.irreps_out[instruction.i_out].ir.l,
            tensor_product.irreps_in1[instruction.i_in1].ir.l,
        )
        first = seen[pair]
        seen[pair] += 3
        flat.append(by_pair[pair][:, :, first : first + 3].permute(2, 1, 0).reshape(3, -1))
    theirs.weight.data = torch.cat(flat, dim=1)
    theirs.sc.weight.data = torch.cat(
        [by_pair[degree, degree][:, :, -1].T.flatten() for degree in range(3)]
    )
    x = torch.randn(2, irreps.dim, 5, 5, 5)
    # Float32 sums over at most 27 x 14 terms in another order.
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_joined_irreps_keep_their_order() -> None:
    torch.manual_seed(0)
    apart = SteerableConv3d(
        o3.Irreps("2x0e + 1x1o + 1x0e + 1x1o"), o3.Irreps("1x1o + 1x0e"), 1, 3.9, 2
    )
    sorted_ = SteerableConv3d(o3.Irreps("3x0e + 2x1o"), o3.Irreps("1x0e + 1x1o"), 1, 3.9, 2)
    sorted_.load_state_dict(apart.state_dict())
    x = torch.randn(1, 9, 4, 4, 4)
    moved = torch.cat([x[:, :2], x[:, 5:6], x[:, 2:5], x[:, 6:]], dim=1)
    expected = sorted_(moved)
    torch.testing.assert_close(apart(x), torch.cat([expected[:, 1:], expected[:, :1]], dim=1))


def test_unit_variance_of_a_voxel_s_own_map() -> None:
    torch.manual_seed(0)
    layer = SteerableConv3d(o3.Irreps("64x0e"), o3.Irreps("64x0e"), 0, 1.0, 1)
    # A kernel of one voxel: 64 terms of variance 1 / 64. The variance of 64 x 64 weights is known
    # to 1/sqrt(2048), 5 sd here.
    assert math.isclose(float(layer.kernel().detach().square().sum(1).mean()), 1.0, abs_tol=0.11)
