"""``eb.adapt``: the same energy asked in every way that other packages ask for it gives the same
forces, and what cannot be adapted is one sentence."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from molecules import molecules
from pair_energies import (
    ELEMENTS,
    ByAtom,
    Dense,
    DenseForces,
    Inside,
    Pairs,
    pair_energy,
    pair_forces,
)
from torch import Tensor, nn

import equivbench as eb
from equivbench.errors import FailedError, ModelError, UsageError
from equivbench.kernels.neighbours import edges_within
from equivbench.tasks.base import TaskData
from equivbench.tasks.forcefield.foreign.graphs import radius_graph
from equivbench.tasks.forcefield.foreign.values import VALUES, Values

CUTOFF = 6.0
WAYS: Mapping[str, tuple[nn.Module, dict[str, Any]]] = {
    "one number a molecule": (Pairs(), {}),
    "said to be an energy": (Pairs(), {"energy": True}),
    "energies of atoms": (
        ByAtom(),
        {"outputs": {"energy": "node_energy"}, "inputs": {"numbers": "z"}},
    ),
    "by position in a tuple": (ByAtom(), {"outputs": 1, "inputs": {"numbers": "z"}}),
    "dense, types, Hartree, Bohr": (
        Dense(),
        {
            "outputs": {"energy": 1},
            "inputs": {"species": "types", "coordinates": "pos"},
            "call": lambda network, given: network((given["species"], given["coordinates"])),
            "elements": ["H", 6, 7, "O", "S"],
            "dense": True,
            "padding": -1,
            "energy_unit": "hartree",
            "length_unit": "bohr",
        },
    ),
    "dense forces": (
        DenseForces(),
        {"energy": False, "inputs": {"Z": "z", "R": "pos", "here": "mask"}, "dense": True},
    ),
    "its own derivative": (
        Inside(),
        {"inputs": {"charges": "z", "xyz": "pos", "index": "batch"}, "call": "mapping"},
    ),
}


def call(model: Any, **sample: Tensor) -> dict[str, Tensor]:
    wanted = {"z", "pos", "batch"}
    given = {name: each for name, each in sample.items() if name in wanted}
    for_edges = model.requires.get("edge_index")
    if for_edges is not None:
        given["edge_index"] = edges_within(sample["pos"], sample["batch"], for_edges)
    return model.eval()(**given)


@pytest.mark.parametrize("way", WAYS)
def test_however_it_is_called_the_forces_are_the_same(way: str) -> None:
    network, said = WAYS[way]
    sample = molecules()
    with torch.no_grad():
        found = call(eb.adapt(network.double(), **said), **sample)
    z, pos, batch = sample["z"], sample["pos"], sample["batch"]
    # A few hundred terms, and a unit that is multiplied and divided out again.
    assert torch.allclose(found["forces"], pair_forces(z, pos, batch), rtol=1e-10, atol=1e-9)
    if "energy" in found:
        assert torch.allclose(found["energy"], pair_energy(z, pos, batch), rtol=1e-12)
    assert not any(each.requires_grad for each in found.values())


def of_package(package: str, **attributes: Any) -> type[nn.Module]:
    """A class that says that it comes from ``package``."""
    return type("Network", (Pairs,), {"__module__": f"{package}.model", **attributes})


def along_edges(z: Tensor, vectors: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """[atoms] the same energy from vectors along edges."""
    strength = (z[source] * z[target]).to(vectors) * torch.exp(-vectors.square().sum(1)) / 2
    return strength.new_zeros(len(z)).index_add(0, target, strength)


def as_mace(self: Any, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
    source, target = data["edge_index"]
    z = self.atomic_numbers[data["node_attrs"].argmax(1)]
    cell = data["cell"].reshape(-1, 3, 3)
    assert len(cell) == len(data["ptr"]) - 1
    moved = torch.einsum("ni,nij->nj", data["unit_shifts"], cell[data["batch"][source]])
    at = data["positions"]
    vectors = at[target] - at[source] + data["shifts"] + moved
    energy = along_edges(z, vectors, source, target)
    return {"energy": energy.new_zeros(len(cell)).index_add(0, data["batch"], energy)}


def as_nequip(self: nn.Module, data: dict[str, Tensor]) -> dict[str, Tensor]:
    centre, neighbour = data["edge_index"]
    vectors = data["pos"][neighbour] - data["pos"][centre]
    z = torch.tensor(ELEMENTS)[data["atom_types"]]
    by_atom = along_edges(z, vectors, neighbour, centre)
    rows = torch.repeat_interleave(data["num_atoms"])
    assert torch.equal(rows, data["batch"])
    total = by_atom.new_zeros(len(data["num_atoms"])).index_add(0, rows, by_atom)
    return {"total_energy": total[:, None], "atomic_energy": by_atom}


def as_schnetpack(self: nn.Module, data: dict[str, Tensor]) -> dict[str, Tensor]:
    centre, neighbour = data["_idx_i"], data["_idx_j"]
    at = data["_positions"].requires_grad_(True)
    vectors = at[neighbour] - at[centre] + data["_offsets"]
    by_atom = along_edges(data["_atomic_numbers"], vectors, neighbour, centre)
    energy = by_atom.new_zeros(len(data["_n_atoms"])).index_add(0, data["_idx_m"], by_atom)
    forces = -torch.autograd.grad(energy.sum(), at)[0]
    return {"energy": energy.detach(), "forces": forces}


PACKAGES: Mapping[str, tuple[Any, dict[str, Any]]] = {
    "mace": (as_mace, {"atomic_numbers": torch.tensor(ELEMENTS), "r_max": torch.tensor(CUTOFF)}),
    "nequip": (
        as_nequip,
        {"type_names": ["H", "C", "N", "O", "S"], "metadata": {"r_max": str(CUTOFF)}},
    ),
    "schnetpack": (as_schnetpack, {"representation": type("R", (), {"cutoff": CUTOFF})()}),
}


@pytest.mark.parametrize("package", PACKAGES)
def test_networks_of_known_packages_need_no_options(package: str) -> None:
    forward, knows = PACKAGES[package]
    network = of_package(package, forward=forward, **knows)()
    sample = molecules()
    model = eb.adapt(network.double())
    assert model.requires == {"edge_index": CUTOFF, "cell": 1.0}
    forces = pair_forces(sample["z"], sample["pos"], sample["batch"])
    # exp(-36) of a pair beyond the cutoff.
    assert torch.allclose(call(model, **sample)["forces"], forces, rtol=1e-9, atol=1e-9)


def test_a_real_network_of_pyg_is_measured(shipped: TaskData) -> None:
    from torch_geometric.nn import SchNet

    def graph(pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        edges = edges_within(pos, batch, 4.0)
        return edges, (pos[edges[0]] - pos[edges[1]]).norm(dim=1)

    torch.manual_seed(0)
    network = SchNet(8, 8, 1, 8, cutoff=4.0, interaction_graph=graph)
    with pytest.raises(ModelError, match=r"returned a Tensor.* equivbench.adapt .*--as energy"):
        eb.measure_equivariance(network, "forcefield", data=shipped, samples=2)
    found = eb.measure_equivariance(
        eb.adapt(network), "forcefield", data=shipped, samples=4, group="o3", symmetry="o3"
    )
    assert found.verdict is not None
    assert found.verdict.holds, found.verdict.reason
    assert found.at_floor


def test_the_graph_of_pyg_has_its_loops_and_its_nearest() -> None:
    sample = molecules()
    pos, batch = sample["pos"], sample["batch"]
    edges = radius_graph(pos, 2.0, batch)
    assert torch.equal(edges, edges_within(pos, batch, 2.0))
    loops = radius_graph(pos, 2.0, batch, loop=True)
    assert torch.equal(loops[:, : edges.shape[1]], edges)
    assert loops[:, edges.shape[1] :].tolist() == [list(range(len(pos)))] * 2
    nearest = radius_graph(pos, 2.0, max_num_neighbors=1)
    assert torch.bincount(nearest[1]).max() == 1
    with pytest.raises(UsageError, match="source_to_target"):
        radius_graph(pos, 2.0, flow="target_to_source")


def test_an_adapted_network_can_be_trained_on_its_forces() -> None:
    sample = molecules()
    for network, said in (WAYS["said to be an energy"], WAYS["its own derivative"]):
        model = eb.adapt(copy.deepcopy(network).double(), **said).train()
        found = model(**{name: sample[name] for name in ("z", "pos", "batch")})
        square = found["forces"].square().sum()
        square.backward()
        (weight,) = model.parameters()
        # Forces are linear in the weight, which is 1.
        assert weight.grad is not None
        assert float(weight.grad) == pytest.approx(2 * square.item())


@settings(max_examples=20)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(-1, 3))
def test_padding_is_undone_by_the_mask(counts: list[int], padding: int) -> None:
    batch = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    z, pos = torch.arange(1, len(batch) + 1), torch.randn(len(batch), 3)
    values = Values(z, pos, batch, None, None, padding)
    mask = values["mask"]
    assert mask.sum(1).tolist() == counts
    assert torch.equal(values["z"][mask], z)
    assert bool((values["z"][~mask] == padding).all())
    assert torch.equal(values["pos"][mask], pos)
    assert not values["pos"][~mask].any()
    assert set(values) == set(VALUES)


class Detached(Pairs):
    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> Any:
        return super().forward(z, pos.detach(), batch)


class Shaped(Pairs):
    """Returns zeros of a shape, that hang on the positions."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> Any:
        return pos.sum() * torch.zeros(self.shape)


class Named(Pairs):
    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> Any:
        return {"dipole": pos, "u0": pair_energy(z, pos, batch)}


class Fails(Pairs):
    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> Any:
        raise KeyError("width")


MISTAKES: Mapping[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "detached": (Detached(), {}, ModelError, "Detached cannot be differentiated by the positions"),
    "fails": (Fails(), {}, FailedError, "Fails failed, given z, pos, batch: KeyError: 'width'"),
    "shape": (Shaped(3, 4), {}, ModelError, r"shape \(3, 4\) for 4 molecules of 39 atoms"),
    "no forces": (Pairs(), {"energy": False}, ModelError, r"gives no forces but a tensor of shape"),
    "no names": (Named(), {}, ModelError, r"outputs dipole, u0, none of them known .*outputs="),
    "wrong name": (Named(), {"outputs": "U0"}, ModelError, "dipole, u0, none of them"),
    "no such element": (
        Dense(),
        {"inputs": {"species_coordinates": "types"}, "elements": ["H", "C", "N", "O"]},
        FailedError,
        "has no S, only H, C, N, O",
    ),
    "elements not said": (
        Dense(),
        {"inputs": {"species_coordinates": "types"}},
        UsageError,
        "elements=",
    ),
    "unknown argument": (ByAtom(), {}, UsageError, r"takes 'numbers', .*inputs={'numbers': 'pos'}"),
    "unknown value": (ByAtom(), {"inputs": {"numbers": "zz"}}, UsageError, "unknown value 'zz'"),
    "edges without a cutoff": (
        ByAtom(),
        {"inputs": {"numbers": "sources"}},
        UsageError,
        "cutoff=5.0",
    ),
    "unit": (Pairs(), {"energy_unit": "hartrees"}, UsageError, "did you mean Hartree"),
    "convention": (Pairs(), {"convention": "schnet"}, UsageError, "did you mean schnetpack"),
    "element": (Pairs(), {"elements": ["H", "Xx"]}, UsageError, "'Xx' is no chemical element"),
    "twice": (Pairs(), {"elements": ["H", 1]}, UsageError, "H is named twice"),
    "output": (Pairs(), {"outputs": {"power": 0}}, UsageError, "not 'power'"),
    "twice adapted": (eb.adapt(Pairs()), {"energy": True}, UsageError, "adapted already"),
    "a class": (Pairs, {}, UsageError, "give an instance"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_be_adapted_is_one_sentence(mistake: str) -> None:
    network, said, kind, says = MISTAKES[mistake]
    with pytest.raises(kind, match=says) as caught:
        call(eb.adapt(network, **said), **molecules(torch.float32))
    assert "\n" not in str(caught.value)
    assert type(caught.value) is kind
