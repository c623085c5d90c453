"""EScAIP's parts: the neighbour table, its orders, and the closed form of its head's twirl."""

import pytest
import torch
from e3nn import o3
from molecules import inputs_for, molecules

from equivbench.symmetry.rotations import octahedral_rotations
from equivbench.tasks.forcefield.networks.escaip import build_tied, build_untied
from equivbench.tasks.forcefield.networks.graph import bond_order, neighbourhood
from equivbench.tasks.forcefield.pairs import TIED_HEAD

DEV = TIED_HEAD.arms[0].presets["dev"].config


def test_the_table_holds_the_edges_of_each_atom() -> None:
    model = build_tied(DEV)
    inputs = inputs_for(model, molecules())
    near = neighbourhood(inputs["pos"], inputs["edge_index"], 4.0, 12)
    for atom in range(len(inputs["z"])):
        sources = inputs["edge_index"][0, inputs["edge_index"][1] == atom]
        found = near.source[atom][near.distance[atom] < 4.0]
        assert torch.equal(found, sources)
        towards = inputs["pos"][sources] - inputs["pos"][atom]
        torch.testing.assert_close(
            near.direction[atom, : len(sources)], towards / towards.norm(dim=1, keepdim=True)
        )
        assert not near.weight[atom, len(sources) :].any()


def test_edges_beyond_the_table_are_left_out_and_the_last_one_kept_weighs_nothing() -> None:
    inputs = inputs_for(build_tied(DEV), molecules())
    near = neighbourhood(inputs["pos"], inputs["edge_index"], 4.0, 3)
    degree = torch.bincount(inputs["edge_index"][1], minlength=len(inputs["z"]))
    assert (degree > 3).any()
    full = degree >= 3
    assert near.weight.shape == (len(inputs["z"]), 3)
    assert not near.weight[full].gather(1, near.distance[full].argmax(1, keepdim=True)).any()


def test_bond_orders_are_those_of_spherical_harmonics() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(
        torch.randn(5, 7, 3, dtype=torch.float64, generator=generator), dim=-1
    )
    weight = torch.rand(5, 7, dtype=torch.float64, generator=generator)
    orders = bond_order(directions @ directions.transpose(1, 2), weight, 6)
    share = (weight / weight.sum(1, keepdim=True)).unsqueeze(-1)
    for degree in range(6):
        # "norm": |Y_l|^2 = 1, that is 4 pi / (2 l + 1) times the square of orthonormal harmonics.
        harmonics = o3.spherical_harmonics(
            degree, directions, normalize=False, normalization="norm"
        )
        mean = (share * harmonics).sum(1)
        # Both 1e-6 that keep the square root and the mean smooth move an order by 1e-3 at most
        # where it is near zero.
        torch.testing.assert_close(orders[:, degree], mean.norm(dim=-1), atol=1e-3, rtol=1e-5)


def test_the_twirl_of_three_rows_is_the_model_with_their_mean() -> None:
    """f_i = m_i sum_j s_ij (*) d_ij: over the cube group, as over SO(3), diag(s) averages to (s_x +
    s_y + s_z) / 3."""
    torch.manual_seed(1)
    three, one = build_untied(DEV).double(), build_tied(DEV).double()
    state = three.state_dict()
    state["direction.rows.weight"] = state["direction.rows.weight"].mean(0, keepdim=True)
    one.load_state_dict(state)
    inputs = inputs_for(three, molecules())
    rotations = octahedral_rotations(dtype=torch.float64)
    with torch.no_grad():
        back = [three(**{**inputs, "pos": inputs["pos"] @ r.T})["forces"] @ r for r in rotations]
        twirled, expected = torch.stack(back).mean(0), one(**inputs)["forces"]
        # Rounding of 24 float64 evaluations.
        torch.testing.assert_close(twirled, expected, atol=1e-12, rtol=1e-10)
        assert float((back[1] - expected).norm() / expected.norm()) > 0.01


def test_the_published_sizes() -> None:
    largest = {**TIED_HEAD.arms[1].presets["paper"].config}
    small = {"hidden": 64, "layers": 4, "atom": 64, "distance": 128, "direction": 32}
    counts = {
        name: sum(p.numel() for p in build_untied({**largest, **changes}).parameters()) / 1e6
        for name, changes in {"1M": small, "4M": {"layers": 4}, "6M": {}}.items()
    }
    # The paper's names are rounded; its largest model has 6.1M parameters.
    assert counts["6M"] == pytest.approx(6.1, abs=0.05)
    assert counts["4M"] == pytest.approx(4, abs=0.5)
    assert counts["1M"] == pytest.approx(1, abs=0.2)
