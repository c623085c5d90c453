"""docs/foreign.md, followed to the letter: every recipe has at most ten lines and gives a model
that is measured rightly."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn.models import schnet, visnet

import equivbench as eb
from equivbench.tasks.base import TaskData

DOCUMENT = Path(__file__).parents[3] / "docs" / "foreign.md"
RECIPES = dict(
    re.findall(
        r"<!-- example: (\w+) -->\n```python\n(.*?)```",
        DOCUMENT.read_text(encoding="utf-8"),
        re.DOTALL,
    )
)


class Energies(NamedTuple):
    species: Tensor
    energies: Tensor


class Ani(nn.Module):
    """An invariant energy of padded molecules, called as those of TorchANI are."""

    def forward(self, given: tuple[Tensor, Tensor]) -> Energies:
        species, at = given
        apart = (at[:, None] - at[:, :, None]).square().sum(-1)
        weights = species.clamp(min=0).to(at)
        pairs = weights[:, None] * weights[:, :, None] * torch.exp(-apart)
        return Energies(species, pairs.sum((1, 2)))


def simple_ani(elements: list[str], lot: str) -> Ani:
    return Ani()


class Graph(nn.Module):
    """An energy of atoms from edges that knows a direction: not equivariant."""

    def forward(
        self,
        node_attrs: Tensor,
        edge_index: Tensor,
        edge_vec: Tensor,
        edge_len: Tensor,
        index: Tensor,
    ) -> Tensor:
        strength = torch.exp(-edge_len.square()) * (1 + 0.1 * edge_vec[:, 0])
        weights = node_attrs @ torch.arange(1.0, node_attrs.shape[1] + 1).to(node_attrs)
        return strength.new_zeros(len(index)).index_add(0, edge_index[1], strength) * weights


def run(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the recipe defines."""
    code = RECIPES[name]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    # What cannot be installed here: packages are named as they are, with networks of a few lines.
    for package, attribute, held in (
        ("my_networks", "Graph", Graph),
        ("torchani.arch", "simple_ani", simple_ani),
    ):
        module = types.ModuleType(package)
        setattr(module, attribute, held)
        monkeypatch.setitem(sys.modules, package, module)
    defined: dict[str, Any] = {}
    exec(code, defined)
    return defined


@pytest.mark.filterwarnings("ignore:.* elements:equivbench.errors.EquivbenchWarning")
@pytest.mark.parametrize(
    ("name", "holds"),
    [("own", True), ("pyg", True), ("tuple", True), ("dense", True), ("graph", False)],
)
def test_networks(
    name: str, holds: bool, monkeypatch: pytest.MonkeyPatch, shipped: TaskData
) -> None:
    for module in (schnet, visnet):  # what the recipes replace is put back
        monkeypatch.setattr(module, "radius_graph", module.radius_graph)
    torch.manual_seed(0)
    model = run(name, monkeypatch)["model"]
    found = eb.measure_equivariance(model, "forcefield", data=shipped, samples=4, rotations=2)
    assert found.verdict is not None
    assert found.verdict.holds is holds, found.verdict.reason
    assert found.total > 0


def test_calculators(monkeypatch: pytest.MonkeyPatch, shipped: TaskData) -> None:
    pytest.importorskip("ase")
    calculator = run("ase", monkeypatch)["calculator"]()
    found = eb.measure_equivariance(
        eb.adapt(calculator), "forcefield", data=shipped, samples=4, rotations=2
    )
    assert found.verdict is not None
    assert found.verdict.holds, found.verdict.reason
    averaged = run("average", monkeypatch)
    assert averaged["forces"].shape == (9, 3)
    # Rounding, of a potential that is equivariant.
    assert averaged["spread"].max() < 1e-9 * abs(averaged["forces"]).max()


def test_crystals(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ase")
    defined = run("crystal", monkeypatch)
    for of in ("forces", "stress"):
        found = defined[of]
        assert found.samples == 72
        assert found.verdict.holds, found.verdict.reason
        assert found.at_floor


def test_no_recipe_is_left_out() -> None:
    assert set(RECIPES) == {"own", "pyg", "tuple", "dense", "graph", "ase", "average", "crystal"}
