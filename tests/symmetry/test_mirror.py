"""The mirror image of typed tensors: signs by parity, an involution, and at one with rotations."""

from __future__ import annotations

import pytest
import torch
from e3nn import o3

from equivbench.errors import UsageError
from equivbench.specs import Field
from equivbench.symmetry.rotations import random_rotations
from equivbench.symmetry.types import SymmetryType, mirror, rotate, transform


def field(symmetry: str) -> Field:
    return Field("x", (), "float32", symmetry, "graph", "1", "sample")


def test_signs_are_those_of_e3nn() -> None:
    for text in ("0e", "1o", "2e", "2x0o + 1e + 3x1o + 2o", "4x2e+0o"):
        inversion = o3.Irreps(text).D_from_matrix(-torch.eye(3))
        assert SymmetryType.parse(text).parities == tuple(
            int(sign) for sign in inversion.diagonal().round()
        )
    assert SymmetryType.parse("voxel(2x0e + 1o)").parities == (1, 1, -1, -1, -1)


@pytest.mark.parametrize(
    ("symmetry", "shape"),
    [("1o + 2x0e + 1e", (4, 5, 8)), ("0o", (4,)), ("voxel(0o + 1o + 0e)", (2, 5, 6, 6, 6))],
)
def test_twice_is_nothing_and_it_commutes_with_rotations(
    symmetry: str, shape: tuple[int, ...]
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    once = mirror({"x": x}, [field(symmetry)])
    assert not torch.equal(once["x"], x)
    assert torch.equal(mirror(once, [field(symmetry)])["x"], x)
    cube = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    haar = random_rotations(
        shape[0], generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    for rotations in (cube[None], *([] if "voxel" in symmetry else [haar])):
        after = mirror(rotate({"x": x}, [field(symmetry)], rotations, None), [field(symmetry)])["x"]
        # Signs and places change without rounding, and the products are the same up to them.
        assert torch.equal(rotate(once, [field(symmetry)], rotations, None)["x"], after)


@pytest.mark.parametrize("symmetry", ["1o", "2x0o + 1e + 2e", "0e"])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, -1), (1, -1, 1)])
def test_improper_matrices_act_as_those_of_e3nn(symmetry: str, signs: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(2)
    elements = random_rotations(3, generator=generator, dtype=torch.float64)
    elements = elements * torch.tensor(signs)[:, None, None]
    node = Field("x", (), "float64", symmetry, "node", "1", "sample")
    index = torch.tensor([0, 0, 1, 2, 2])
    x = torch.randn(5, SymmetryType.parse(symmetry).dim, generator=generator, dtype=torch.float64)
    matrices = o3.Irreps(symmetry).D_from_matrix(elements.float())[index].double()
    expected = (matrices @ x[..., None])[..., 0]
    found = transform({"x": x, "z": index}, [node], elements, index)
    # e3nn's matrices come from angles in float32.
    torch.testing.assert_close(found["x"], expected, rtol=1e-5, atol=1e-5)
    assert found["z"] is index
    back = transform(found, [node], elements.transpose(1, 2), index)
    torch.testing.assert_close(back["x"], x)


def test_a_grid_of_scalars_is_turned_inside_out() -> None:
    grid = torch.arange(2.0 * 8).reshape(1, 2, 2, 2, 2)
    mirrored = mirror({"x": grid, "other": grid}, [field("voxel(2x0e)")])
    assert mirrored["x"][0, 1, 0, 1, 0] == grid[0, 1, 1, 0, 1]
    assert mirrored["other"] is grid


def test_a_tensor_that_does_not_fit_its_type_is_named() -> None:
    with pytest.raises(UsageError, match=r"field 'x' declared '1o \+ 0e' has shape \(2, 3\)"):
        mirror({"x": torch.zeros(2, 3)}, [field("1o + 0e")])
