"""Symmetry types: the notation, and that the action is the group's."""

import pytest
import torch
from e3nn import o3

from equivbench.errors import UsageError
from equivbench.specs import Field
from equivbench.symmetry.rotations import octahedral_rotations, random_rotations
from equivbench.symmetry.types import SymmetryType, representation, rotate


def haar(n: int, seed: int = 0) -> torch.Tensor:
    return random_rotations(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def field(name: str, symmetry: str, per: str = "node") -> Field:
    return Field(name, ("rows",), "float32", symmetry, per, "", "sample")  # type: ignore[arg-type]


def test_parse_reads_e3nns_notation() -> None:
    assert SymmetryType.parse("1o + 2x0e") == SymmetryType(((1, 1), (2, 0)))
    assert SymmetryType.parse("4x0e+3x2e").dim == 19
    assert SymmetryType.parse("voxel(4x0e)") == SymmetryType(((4, 0),), voxel=True)
    assert SymmetryType.parse("8x0e + 0o").invariant
    assert not SymmetryType.parse("voxel(0e)").invariant
    assert SymmetryType.parse("ij=ji") == SymmetryType(((1, 0), (1, 2)), cartesian=True)
    assert SymmetryType.parse("ij=ji") != SymmetryType.parse("0e + 2e")


@pytest.mark.parametrize("text", ["", "1", "1x", "vector", "1o +", "voxel(4x0e", "voxel()", "-1o"])
def test_parse_refuses_what_it_cannot_read(text: str) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        SymmetryType.parse(text)


@pytest.mark.parametrize("degree", range(5))
def test_representation_is_an_orthogonal_homomorphism_in_e3nns_basis(degree: int) -> None:
    first, second = haar(4), haar(4, seed=1)
    matrices = representation(degree, first)
    # Least squares on ~20 well spread points: a few tens of eps.
    exact = {"atol": 1e-13, "rtol": 0}
    torch.testing.assert_close(
        representation(degree, first @ second), matrices @ representation(degree, second), **exact
    )
    torch.testing.assert_close(
        representation(degree, first.transpose(1, 2)), matrices.transpose(1, 2), **exact
    )
    # e3nn builds its own matrices from float32 tables: good to a few 1e-6.
    torch.testing.assert_close(
        matrices, o3.Irrep(degree, 1).D_from_matrix(first), atol=1e-5, rtol=0
    )


def test_act_rotates_vectors_and_leaves_scalars() -> None:
    rotations = haar(3)
    values = torch.randn(3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    out = SymmetryType.parse("1o + 2x0e").act(values, rotations)
    torch.testing.assert_close(
        out[..., :3], torch.einsum("nij,nkj->nki", rotations, values[..., :3])
    )
    assert torch.equal(out[..., 3:], values[..., 3:])


def test_a_symmetric_matrix_turns_on_both_sides_as_its_irreps_do() -> None:
    kind, rotations = SymmetryType.parse("ij=ji"), haar(5)
    values = torch.randn(
        5, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    values = values + values.mT
    out = kind.act(values, rotations)
    torch.testing.assert_close(
        out, torch.einsum("nij,nkjl,nml->nkim", rotations, values, rotations)
    )
    irreps = kind.components(values)
    assert irreps.shape == (5, 4, kind.dim)
    torch.testing.assert_close(irreps.norm(dim=-1), values.flatten(2).norm(dim=-1))
    torch.testing.assert_close(
        kind.components(out), SymmetryType.parse("0e+2e").act(irreps, rotations)
    )
    # The same basis as e3nn's, of which the sign and order of degree 2 say all.
    torch.testing.assert_close(
        kind.components(torch.diag(torch.tensor([0.0, 1, 0]))[None])[0],
        torch.tensor([1, 0, 0, 2, 0, 0]) / torch.tensor([3.0, 1, 1, 6, 1, 1]).sqrt(),
    )
    alone = SymmetryType.parse("1o")
    assert alone.components(values[:, 0]) is not None
    assert torch.equal(alone.components(values), values)


def test_a_symmetric_matrix_has_three_rows_and_columns() -> None:
    kind = SymmetryType.parse("ij=ji")
    for shape in ((5, 6), (5, 3, 2), (3, 3)):
        with pytest.raises(UsageError, match="a matrix of 3 by 3 but the tensor has shape"):
            kind.act(torch.zeros(shape), haar(1))


def test_act_computes_in_float64() -> None:
    values = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    rotations = haar(100)
    vector = SymmetryType.parse("1o")
    expected = torch.einsum("nij,nj->ni", rotations, values.double()).float()
    assert torch.equal(vector.act(values, rotations), expected)


@pytest.mark.parametrize("symmetry", ["voxel(2x0e)", "voxel(1o)", "voxel(0e + 2e)"])
def test_cube_group_acts_on_grids_exactly_and_as_a_group(symmetry: str) -> None:
    kind = SymmetryType.parse(symmetry)
    group = octahedral_rotations(dtype=torch.float64)
    grid = (
        torch.randn(1, kind.dim, 4, 4, 4, generator=torch.Generator().manual_seed(0))
        .double()
        .expand(24, -1, -1, -1, -1)
    )
    other = group.roll(5, 0)
    twice = kind.act(kind.act(grid, other), group)
    # Axis permutations are exact; only l=2 channels are mixed by fitted matrices (a few tens of
    # eps).
    torch.testing.assert_close(twice, kind.act(grid, group @ other), atol=1e-13, rtol=0)
    torch.testing.assert_close(
        kind.act(kind.act(grid, group), group.transpose(1, 2)), grid, atol=1e-13, rtol=0
    )


@pytest.mark.parametrize("which", range(24))
def test_grid_values_move_to_the_rotated_place(which: int) -> None:
    rotation = octahedral_rotations(dtype=torch.float64)[which]
    grid = torch.zeros(1, 1, 5, 5, 5)
    place = torch.tensor([2, 1, -2]) + 2
    grid[0, 0, place[0], place[1], place[2]] = 1.0
    moved = (rotation @ (place - 2).double()).long() + 2
    assert (
        SymmetryType.parse("voxel(0e)").act(grid, rotation[None])[
            0, 0, moved[0], moved[1], moved[2]
        ]
        == 1.0
    )


def test_interpolation_agrees_with_the_exact_action_and_with_a_smooth_field() -> None:
    size = 24
    centres = (2 * torch.arange(size).double() + 1) / size - 1
    points = torch.stack(torch.meshgrid(centres, centres, centres, indexing="ij"), -1)
    centre = torch.tensor([0.3, -0.2, 0.1]).double()

    def blob(at: torch.Tensor) -> torch.Tensor:
        return torch.exp(-((points - at) ** 2).sum(-1) / 0.08)[None, None]

    scalar = SymmetryType.parse("voxel(0e)")
    rotation = haar(1)
    # Trilinear error is at most (h^2/8) sum |f''| with h = 2/24, |f''| <= 2/0.08 in each of three
    # directions.
    assert (scalar.act(blob(centre), rotation) - blob(rotation[0] @ centre)).abs().max() < (
        2 / 24
    ) ** 2 / 8 * 3 * 25
    quarter = octahedral_rotations(dtype=torch.float64)[7][None]
    # Off by less than rounding of a quarter turn, the interpolating path must agree with the
    # permuting one.
    nudged = quarter + 1e-15
    torch.testing.assert_close(
        scalar.act(blob(centre), nudged), scalar.act(blob(centre), quarter), atol=1e-12, rtol=0
    )


def test_rotate_follows_the_declarations() -> None:
    fields = [
        field("pos", "1o"),
        field("z", "0e"),
        field("dipole", "1o", "graph"),
        field("edges", "0e", "none"),
    ]
    index = torch.tensor([0, 0, 1])
    batch = {
        "pos": torch.randn(3, 3),
        "z": torch.arange(3),
        "dipole": torch.randn(2, 3),
        "extra": torch.ones(2),
    }
    rotations = haar(2)
    out = rotate(batch, fields, rotations, index)
    torch.testing.assert_close(
        out["pos"].double(),
        torch.einsum("nij,nj->ni", rotations[index], batch["pos"].double()),
        atol=1e-6,
        rtol=0,
    )
    torch.testing.assert_close(
        out["dipole"].double(),
        torch.einsum("nij,nj->ni", rotations, batch["dipole"].double()),
        atol=1e-6,
        rtol=0,
    )
    assert out["z"] is batch["z"]
    assert out["extra"] is batch["extra"]
    back = rotate(out, fields, rotations.transpose(1, 2), index)
    # Two roundings to float32 of numbers below ~3.
    torch.testing.assert_close(back["pos"], batch["pos"], atol=2e-6, rtol=0)
    assert torch.equal(
        rotate(batch, fields, rotations[:1], None)["dipole"],
        rotate(batch, fields, rotations[[0, 0]], index)["dipole"],
    )


def test_rotate_names_the_field_that_does_not_fit() -> None:
    with pytest.raises(UsageError, match=r"'pos'.*3 components"):
        rotate({"pos": torch.randn(3, 4)}, [field("pos", "1o")], haar(3), torch.arange(3))
    with pytest.raises(UsageError, match=r"'pos'.*int64"):
        rotate(
            {"pos": torch.ones(3, 3, dtype=torch.int64)},
            [field("pos", "1o")],
            haar(3),
            torch.arange(3),
        )
    with pytest.raises(UsageError, match=r"'pos'.*no index"):
        rotate({"pos": torch.randn(3, 3)}, [field("pos", "1o")], haar(3), None)
    with pytest.raises(UsageError, match="cubic"):
        rotate({"v": torch.randn(1, 1, 2, 3, 2)}, [field("v", "voxel(0e)", "graph")], haar(1), None)
