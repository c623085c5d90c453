"""``assert_equivariant`` on models whose symmetry is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equivbench as eb
from equivbench.errors import UsageError

NODES = 12
TYPES = {"pos": "1o", "z": "0e"}


def structure(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "pos": torch.randn(NODES, 3, generator=generator, dtype=torch.float64).to(dtype),
        "z": torch.randint(1, 9, (NODES,), generator=generator),
    }


class Vectors(nn.Module):
    """Vectors of differences and invariant weights: o3. ``extra`` adds what breaks it."""

    def __init__(self, extra: Any = None, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Linear(1, 1)
        self.extra, self.scale = extra, scale

    def forward(self, pos: Tensor, z: Tensor) -> Mapping[str, Tensor]:
        difference = pos[:, None] - pos[None]
        distance = difference.square().sum(-1, keepdim=True)
        each = difference * self.weight(torch.exp(-distance)) * z[None, :, None]
        forces = self.scale * each.sum(1)
        if self.extra is not None:
            forces = forces + self.extra(pos, forces)
        return {"forces": forces, "energy": distance.sum().reshape(1, 1)}


OUTPUTS = {"forces": "1o", "energy": "0e"}


def cross(pos: Tensor, forces: Tensor) -> Tensor:
    return torch.linalg.cross(pos - pos.mean(0), pos.roll(1, 0) - pos.mean(0))


def stretched(by: float) -> Any:
    return lambda pos, forces: by * forces * forces.new_tensor([1.0, 0.0, 0.0])


def crystal(realigned: bool, pos: Tensor, cell: Tensor) -> Mapping[str, Tensor]:
    """Pulls towards the nearest images along each lattice vector, and the stress of these;
    ``realigned``: as if the cell had not turned with the atoms."""
    lattice = torch.linalg.cholesky(cell @ cell.mT) if realigned else cell
    moves = torch.cat([lattice[0], -lattice[0], torch.zeros_like(lattice[0])])
    vectors = pos + moves[:, None, None] - pos[:, None]
    weight = torch.exp(-vectors.square().sum(-1, keepdim=True))
    stress = torch.einsum("sija,sijb->ab", weight * vectors, vectors)
    return {"forces": (weight * vectors).sum((0, 2)), "stress": stress[None]}


@pytest.mark.parametrize("realigned", [False, True])
def test_a_cell_turns_with_the_positions_and_a_stress_on_both_sides(realigned: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    cell = 1.5 * torch.eye(3) + 0.4 * torch.randn(3, 3, generator=generator)
    inputs = {"pos": structure()["pos"], "cell": cell[None]}
    types = {"pos": "1o", "cell": "1o"}, {"forces": "1o", "stress": "ij=ji"}

    def model(pos: Tensor, cell: Tensor) -> Mapping[str, Tensor]:
        return crystal(realigned, pos, cell)

    if not realigned:
        eb.assert_equivariant(model, inputs, *types, group="o3")
        return
    with pytest.raises(AssertionError, match=r"(?s)'forces' is not equi.*'stress' is not equi"):
        eb.assert_equivariant(model, inputs, *types)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("group", ["so3", "o3", "octahedral"])
def test_an_equivariant_model_passes(dtype: torch.dtype, group: Any) -> None:
    model = Vectors().to(dtype)
    eb.assert_equivariant(model, structure(dtype), TYPES, OUTPUTS, group)


@pytest.mark.parametrize("by", [0.3, 1e-3, 1e-5])
def test_an_anisotropy_is_found_and_named(by: float) -> None:
    with pytest.raises(AssertionError, match="output 'forces' is not equivariant") as failure:
        eb.assert_equivariant(Vectors(stretched(by)), structure(), TYPES, OUTPUTS)
    assert "does not fall like rounding" in str(failure.value)
    assert "energy" not in str(failure.value), "what is right is not named"


def test_a_pseudovector_in_a_vector_turns_and_does_not_reflect() -> None:
    model = Vectors(cross)
    eb.assert_equivariant(model, structure(), TYPES, OUTPUTS, "so3")
    with pytest.raises(AssertionError, match="proper rotations, and not with reflections"):
        eb.assert_equivariant(model, structure(), TYPES, OUTPUTS, "o3")
    alone = {"forces": "1e"}
    with pytest.raises(AssertionError, match="reflections"):
        eb.assert_equivariant(Vectors(), structure(), TYPES, alone, "o3")


def test_a_small_difference_of_large_numbers_is_rounding() -> None:
    def moved(pos: Tensor, z: Tensor) -> Tensor:
        return (pos + 1e-3 * (pos - pos.mean(0))) - pos

    eb.assert_equivariant(moved, structure(), TYPES, "1o", "o3")


def test_noise_is_not_equivariance() -> None:
    def noisy(pos: Tensor, z: Tensor) -> Tensor:
        return pos + 1e-4 * torch.randn_like(pos)

    with pytest.raises(AssertionError, match="the output is not deterministic"):
        eb.assert_equivariant(noisy, structure(), TYPES, "1o")


def test_last_digits_that_change_are_rounding() -> None:
    """A GPU adds up in whatever order its threads come."""

    def unsteady(pos: Tensor, z: Tensor) -> Tensor:
        return pos * (1 + torch.finfo(pos.dtype).eps * torch.randint(4, pos.shape))

    inputs = structure()
    assert not torch.equal(unsteady(**inputs), unsteady(**inputs))
    eb.assert_equivariant(unsteady, inputs, TYPES, "1o")


def test_dropout_is_off_and_the_mode_is_put_back() -> None:
    class Dropping(Vectors):
        def forward(self, pos: Tensor, z: Tensor) -> Mapping[str, Tensor]:
            found = super().forward(pos, z)
            return {"forces": nn.functional.dropout(found["forces"], 0.5, self.training)}

    model = Dropping().train()
    eb.assert_equivariant(model, structure(), TYPES, {"forces": "1o"})
    assert model.training


def test_what_predicts_nothing_is_refused() -> None:
    with pytest.raises(AssertionError, match="zero for every input"):
        eb.assert_equivariant(Vectors(scale=0.0), structure(), TYPES, {"forces": "1o"})


def test_a_model_that_computes_in_float32_inside_is_judged_by_its_floor() -> None:
    def single(pos: Tensor, z: Tensor) -> Tensor:
        narrow = pos.float()
        return (narrow * narrow.square().sum(1, keepdim=True)).to(pos.dtype)

    eb.assert_equivariant(single, structure(), TYPES, "1o")

    def broken(pos: Tensor, z: Tensor) -> Tensor:
        return single(pos, z) * pos.new_tensor([1.001, 1.0, 1.0])

    with pytest.raises(AssertionError, match="computes in float32 inside"):
        eb.assert_equivariant(broken, structure(), TYPES, "1o")


def test_forces_by_autograd_inside_the_model() -> None:
    def conservative(pos: Tensor, z: Tensor) -> dict[str, Tensor]:
        pos = pos.detach().requires_grad_()
        energy = torch.exp(-torch.pdist(pos)).sum()
        (gradient,) = torch.autograd.grad(energy, pos)
        return {"forces": -gradient, "energy": energy.reshape(1, 1)}

    eb.assert_equivariant(conservative, structure(), TYPES, OUTPUTS, "o3")


def test_a_network_may_differentiate_whatever_the_caller_has_switched_off() -> None:
    class Slope(nn.Module):
        def forward(self, pos: Tensor, z: Tensor) -> dict[str, Tensor]:
            energy = torch.exp(-torch.pdist(pos.requires_grad_())).sum()
            (gradient,) = torch.autograd.grad(energy, pos)
            return {"forces": -gradient, "energy": energy.reshape(1, 1)}

    with torch.no_grad():
        eb.assert_equivariant(Slope(), structure(), TYPES, OUTPUTS, "o3")


def test_higher_irreps_and_grids() -> None:
    from e3nn import o3

    def harmonics(pos: Tensor, z: Tensor) -> Tensor:
        return o3.spherical_harmonics([1, 2, 3], pos, normalize=False)

    eb.assert_equivariant(harmonics, structure(), TYPES, "1o + 2e + 3o", "o3")
    with pytest.raises(AssertionError):
        eb.assert_equivariant(harmonics, structure(), TYPES, "1o + 2e + 3e", "o3")
    grid = {"density": torch.randn(2, 1, 6, 6, 6, generator=torch.Generator().manual_seed(0))}
    blur = nn.AvgPool3d(3, stride=1, padding=1)
    kinds = {"density": "voxel(0e)"}

    def smoothed(density: Tensor) -> Tensor:
        return blur(density)

    eb.assert_equivariant(smoothed, grid, kinds, "voxel(0e)", "octahedral", rotations=24)
    with pytest.raises(UsageError, match="only the rotations of the cube"):
        eb.assert_equivariant(smoothed, grid, kinds, "voxel(0e)")

    def shifted(density: Tensor) -> Tensor:
        return density.roll(1, 2)

    with pytest.raises(AssertionError):
        eb.assert_equivariant(shifted, grid, kinds, "voxel(0e)", "octahedral")


def test_inputs_are_left_as_they_were() -> None:
    def writes(pos: Tensor, z: Tensor) -> Tensor:
        pos -= pos.mean(0)
        return pos

    inputs = structure()
    before = {name: value.clone() for name, value in inputs.items()}
    eb.assert_equivariant(writes, inputs, TYPES, "1o")
    assert all(torch.equal(inputs[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"inputs_types": {"pos": "2z"}}, "cannot be read"),
        ({"inputs_types": {"z": "0e"}}, "input 'pos' has no symmetry type"),
        ({"inputs_types": {"pos": "1o", "posit": "1o"}}, "posit"),
        ({"inputs_types": {"pos": "2e"}}, "5 components"),
        ({"outputs_types": {}}, "nothing to check"),
        ({"outputs_types": {"force": "1o"}}, "did you mean forces"),
        ({"outputs_types": "1o"}, "not a tensor"),
        ({"rotations": 1}, "at least 2"),
    ],
)
def test_a_mistake_is_one_sentence(change: dict[str, Any], says: str) -> None:
    asked: dict[str, Any] = {"inputs_types": TYPES, "outputs_types": OUTPUTS, **change}
    with pytest.raises(UsageError, match=says):
        eb.assert_equivariant(Vectors(), structure(), **asked)


@pytest.mark.equivariant(group="o3", rotations=6)
def test_the_fixture_has_the_markers_defaults(assert_equivariant: Any) -> None:
    assert assert_equivariant.keywords == {"group": "o3", "rotations": 6}
    assert_equivariant(Vectors(), structure(), TYPES, OUTPUTS)
    with pytest.raises(AssertionError, match="o3"):
        assert_equivariant(Vectors(cross), structure(), TYPES, OUTPUTS)


def test_the_fixture_alone_has_none(assert_equivariant: Any) -> None:
    assert assert_equivariant.keywords == {}
