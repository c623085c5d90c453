"""What every force-field network must satisfy, read from its declaration and its pair."""

import pytest
import torch
from molecules import ATOMS, alone, call, inputs_for, molecules
from torch import nn

from equivbench.kernels.backend import OnBackend, UnsupportedError
from equivbench.kernels.measuring import why_absent
from equivbench.registry import KERNEL_BACKENDS, MODELS, resolve
from equivbench.symmetry.rotations import random_rotations
from equivbench.tasks.forcefield.conservative import ConservativeForces
from equivbench.tasks.forcefield.pairs import PAIRS

CONFIGS = {arm.model: arm.presets["dev"].config for pair in PAIRS for arm in pair.arms}
NAMES = sorted(CONFIGS)
EQUIVARIANT = [name for name in NAMES if MODELS.get(name).symmetry in ("so3", "o3")]
# Rotations, and rotations with a reflection.
MOVES = [
    *((name, 1.0) for name in EQUIVARIANT),
    *((name, -1.0) for name in EQUIVARIANT if MODELS.get(name).symmetry == "o3"),
]
PLAIN = [name for name in NAMES if MODELS.get(name).symmetry == "none"]
KERNELS = [
    name
    for name, entry in KERNEL_BACKENDS.entries().items()
    # What they take unless another is asked for is torch.
    if name != "torch"
    and not entry.value.slow_to_build
    and why_absent(name, torch.device("cpu")) is None
]
ON_KERNELS = [
    *((name, None) for name in NAMES),
    *((name, kernels) for name in NAMES if MODELS.get(name).kernels for kernels in KERNELS),
]
"""Every network, and those that take a kernel backend on each other one that is here."""
# float64 rounding through some ten layers of sums over up to 14 neighbours, relative to the largest
# force.
EXACT = 1e-10


def build(name: str, dtype: torch.dtype = torch.float64, kernels: str | None = None) -> nn.Module:
    torch.manual_seed(3)
    config = CONFIGS[name] if kernels is None else {**CONFIGS[name], "kernels": kernels}
    try:
        return resolve(MODELS.get(name).build)(config).to(dtype)
    except UnsupportedError as error:
        pytest.skip(str(error))


def relative(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).detach().abs().max() / second.detach().abs().max())


def rotation() -> torch.Tensor:
    return random_rotations(1, generator=torch.Generator().manual_seed(5), dtype=torch.float64)[0]


def moved(sample: dict[str, torch.Tensor], matrix: torch.Tensor) -> dict[str, torch.Tensor]:
    return {**sample, "pos": sample["pos"] @ matrix.T}


def test_every_declared_arm_is_covered() -> None:
    assert EQUIVARIANT
    assert PLAIN
    assert {MODELS.get(name).task for name in NAMES} == {"forcefield"}


@pytest.mark.parametrize("name", NAMES)
def test_a_network_takes_from_its_kernel_backend_what_it_declares(name: str) -> None:
    taken = {each.operation.name for each in build(name).modules() if isinstance(each, OnBackend)}
    assert taken == set(MODELS.get(name).operations)
    assert MODELS.get(name).kernels is bool(taken)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_have_their_shapes_and_precision(name: str) -> None:
    for dtype in (torch.float32, torch.float64):
        out = call(build(name, dtype), molecules(dtype))
        assert out["forces"].shape == (sum(ATOMS), 3)
        assert out["energy"].shape == (len(ATOMS),)
        assert {value.dtype for value in out.values()} == {dtype}
        assert all(value.isfinite().all() for value in out.values())


@pytest.mark.parametrize(("name", "sign"), MOVES)
def test_equivariant_networks_commute_with_what_they_declare(name: str, sign: float) -> None:
    model, sample, matrix = build(name), molecules(), sign * rotation()
    out, turned = call(model, sample), call(model, moved(sample, matrix))
    assert relative(turned["forces"], out["forces"] @ matrix.T) < EXACT
    assert relative(turned["energy"], out["energy"]) < EXACT


@pytest.mark.parametrize("name", PLAIN)
def test_augmented_networks_have_no_symmetry_of_their_own(name: str) -> None:
    model, sample, matrix = build(name), molecules(), rotation()
    out, turned = call(model, sample), call(model, moved(sample, matrix))
    # Untrained, the plain networks are off by 10% and more; 1% is far above rounding and far below
    # that.
    assert relative(turned["forces"], out["forces"] @ matrix.T) > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_networks_do_not_see_the_origin(name: str) -> None:
    model, sample = build(name), molecules()
    out = call(model, sample)
    shifted = call(
        model,
        {**sample, "pos": sample["pos"] + torch.tensor([3.0, -2.0, 5.0], dtype=torch.float64)},
    )
    assert relative(shifted["forces"], out["forces"]) < EXACT
    assert relative(shifted["energy"], out["energy"]) < EXACT


@pytest.mark.parametrize("name", NAMES)
def test_networks_do_not_see_the_order_of_atoms(name: str) -> None:
    model, sample = build(name), molecules()
    generator = torch.Generator().manual_seed(8)
    order = torch.cat(
        [
            torch.nonzero(sample["batch"] == m)[:, 0][torch.randperm(n, generator=generator)]
            for m, n in enumerate(ATOMS)
        ]
    )
    out = call(model, sample)
    permuted = call(model, {**sample, "z": sample["z"][order], "pos": sample["pos"][order]})
    assert relative(permuted["forces"], out["forces"][order]) < EXACT
    assert relative(permuted["energy"], out["energy"]) < EXACT


@pytest.mark.parametrize("name", NAMES)
def test_a_molecule_is_the_same_in_a_batch_as_alone(name: str) -> None:
    model, sample = build(name), molecules()
    out = call(model, sample)
    for molecule in range(len(ATOMS)):
        single = call(model, alone(sample, molecule))
        assert relative(single["forces"], out["forces"][sample["batch"] == molecule]) < EXACT
        assert relative(single["energy"], out["energy"][molecule : molecule + 1]) < EXACT


@pytest.mark.parametrize("name", NAMES)
def test_networks_see_the_elements(name: str) -> None:
    model, sample = build(name), molecules()
    changed = sample["z"].clone()
    changed[0] = 9
    first, second = call(model, sample), call(model, {**sample, "z": changed})
    here = sample["batch"] == 0
    # Not only the atom that was changed: its neighbours feel it too.
    assert (
        (first["forces"] - second["forces"]).abs().amax(1)[here][1:] > 1e-9
    ).all()  # far above float64 rounding
    assert torch.equal(first["forces"][~here], second["forces"][~here])


@pytest.mark.parametrize("name", NAMES)
def test_a_molecule_of_one_atom_feels_no_infinity(name: str) -> None:
    sample = {
        "z": torch.tensor([6, 1, 1]),
        "pos": torch.tensor([[0.0, 0, 0], [0, 0, 0], [0, 0, 0.8]], dtype=torch.float64),
        "batch": torch.tensor([0, 1, 1]),
        "n_atoms": torch.tensor([1, 2]),
    }
    out = call(build(name), sample)
    assert out["forces"].isfinite().all()
    assert out["energy"].isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_learns_from_direct_forces_and_energies(name: str) -> None:
    model = build(name)
    out = call(model, molecules())
    (out["forces"].square().sum() + out["energy"].square().sum()).backward()
    dead = [
        key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()
    ]
    assert not dead


@pytest.mark.parametrize("name", NAMES)
def test_forces_fade_with_the_last_neighbour(name: str) -> None:
    """A pair that crosses the cutoff changes nothing at the crossing: no jump for rounding to
    decide."""
    model = build(name)
    cutoff = model.requires["edge_index"]  # type: ignore[index]
    here, beyond = (
        call(
            model,
            {
                "z": torch.tensor([8, 6, 6, 1]),
                "pos": torch.tensor(
                    [[0.0, 1.2, 0], [0, 0, 0], [-distance, 0, 0], [-distance, 0, 1]],
                    dtype=torch.float64,
                ),
                "batch": torch.zeros(4, dtype=torch.int64),
                "n_atoms": torch.tensor([4]),
            },
        )
        for distance in (cutoff - 1e-7, cutoff + 1e-7)
    )
    # The cutoff function is quadratic at its end: (1e-7)^2 at most, and first order where a network
    # divides by its sum.
    assert float((here["forces"] - beyond["forces"]).detach().abs().max()) < 1e-6
    assert float((here["energy"] - beyond["energy"]).detach().abs().max()) < 1e-6


@pytest.mark.parametrize(("name", "kernels"), ON_KERNELS)
def test_conservative_forces_are_the_slope_of_the_energy(name: str, kernels: str | None) -> None:
    network = build(name, kernels=kernels)
    model, sample = ConservativeForces(network), molecules()
    inputs = inputs_for(network, sample)
    with torch.no_grad():
        forces = model(**inputs)["forces"]
        step = 1e-5
        for atom, axis in ((0, 0), (12, 1), (28, 2)):
            shift = torch.zeros_like(sample["pos"])
            shift[atom, axis] = step
            up, down = (
                network(**{**inputs, "pos": sample["pos"] + s * shift})["energy"].sum()
                for s in (1, -1)
            )
            slope = float((up - down) / (2 * step))
            # Central differences: rounding 1e-16 |E| / step = 1e-11, curvature step^2 = 1e-10 times
            # a third derivative.
            assert float(forces[atom, axis]) == pytest.approx(-slope, abs=1e-7)


@pytest.mark.parametrize(("name", "kernels"), ON_KERNELS)
def test_conservative_forces_train_the_energy(name: str, kernels: str | None) -> None:
    """Parameter gradients through the forces agree with finite differences of the loss along a
    random direction."""
    network = build(name, kernels=kernels)
    model = ConservativeForces(network)
    inputs = inputs_for(network, molecules())

    def loss() -> torch.Tensor:
        return model(**inputs)["forces"].square().sum()

    loss().backward()
    trained = [p for p in network.parameters() if p.grad is not None]
    generator = torch.Generator().manual_seed(2)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in trained]
    expected = sum(float((p.grad * d).sum()) for p, d in zip(trained, direction, strict=True))
    step = 1e-6
    values = []
    for sign in (1, -2):
        with torch.no_grad():
            for p, d in zip(trained, direction, strict=True):
                p.add_(d, alpha=sign * step)
            values.append(float(loss()))
    # Central difference of a sum of squares in float64: about 1e-6 relative; wrong double backward
    # is off by 0.2 and more.
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=1e-4)
