"""docs/plugins.md, followed to the letter: a model, two tasks and a kernel of another package, each
in at most fifteen lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from running import Bench

DOCUMENT = Path(__file__).parents[2] / "docs" / "plugins.md"
EXAMPLES = dict(
    re.findall(r"<!-- example: (\w+) -->\n```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
)
NETWORK = """
import torch
from torch import nn


class MyNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(100, 8)
        self.force = nn.Linear(11, 3)

    def forward(self, z, pos, batch, edge_index):
        source, target = edge_index
        message = torch.cat([pos[source] - pos[target], self.embedding(z)[source]], dim=-1)
        return {"forces": torch.zeros_like(pos).index_add(0, target, self.force(message))}
"""
DIPOLE_MODELS = """

from torch import nn


class Vectors(nn.Module):
    def __init__(self):
        super().__init__()
        self.weigh = nn.Linear(5, 5)

    def forward(self, charges, pos):
        return {"dipole": (self.weigh(charges)[..., None] * pos.view(-1, 5, 3)).sum(1)}


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(20, 32), nn.SiLU(), nn.Linear(32, 3))

    def forward(self, charges, pos):
        return {"dipole": self.net(torch.cat([charges, pos], dim=1))}


eb.register_model("my-vectors", task="dipole", symmetry="o3")(lambda config: Vectors())
eb.register_model("my-mlp", task="dipole", symmetry="none")(lambda config: Flat())
eb.register_pair(eb.simple_pair("dipole/mine", dataset="point-charges", equivariant="my-vectors", augmented="my-mlp"))
"""
CLOUD_MODELS = """

from torch import nn


class Vectors(nn.Module):
    def __init__(self):
        super().__init__()
        self.weigh = nn.Linear(1, 1)

    def forward(self, charge, pos, batch):
        return {"force": self.weigh(charge) * pos}


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 32), nn.SiLU(), nn.Linear(32, 3))

    def forward(self, charge, pos, batch, edge_index):
        source, target = edge_index
        near = torch.zeros_like(charge).index_add(0, target, charge[source])
        return {"force": self.net(torch.cat([charge, near, pos], dim=1))}


eb.register_model("my-vectors", task="pull", symmetry="o3")(lambda config: Vectors())
eb.register_model("my-mlp", task="pull", symmetry="none", requires={"edge_index": 1.0})(lambda config: Flat())
eb.register_pair(eb.simple_pair("pull/mine", dataset="clouds", equivariant="my-vectors", augmented="my-mlp"))
"""
LINEAR = """
import torch


def linear(x, weights, inputs, outputs):
    maps = list(zip(inputs, outputs))
    parts = zip(x.split([(2 * l + 1) * a for l, a in enumerate(inputs)], dim=1), weights.split([a * b for a, b in maps]), maps)
    return torch.cat([(part.unflatten(1, (-1, a)) @ w.view(a, b)).flatten(1) for part, w, (a, b) in parts], dim=1)
"""


def installed(folder: Path, code: str, **modules: str) -> Bench:
    """A bench whose path has ``my_package`` with ``code`` as its plug-in, and what else it
    imports."""
    bench = Bench(folder)
    package = folder / "site" / "my_package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "plugin.py").write_text(code)
    for name, text in modules.items():
        (package / f"{name}.py").write_text(text)
    bench.entry_point("my_package.plugin", "my-package")
    return bench


def test_each_takes_at_most_fifteen_lines() -> None:
    assert EXAMPLES.keys() == {"model", "task", "clouds", "kernel"}
    lengths = {
        name: sum(bool(line.strip()) for line in code.splitlines())
        for name, code in EXAMPLES.items()
    }
    assert max(lengths.values()) <= 15, lengths


@pytest.mark.slow
def test_the_model_runs_and_is_measured(tmp_path: Path) -> None:
    bench = installed(tmp_path, EXAMPLES["model"], network=NETWORK)
    ran = bench(
        "run",
        "forcefield/mine",
        "--preset",
        "dev",
        "--budget",
        "4steps",
        "--threads",
        "1",
        "--json",
    )
    assert ran.code == 0, ran.err
    assert [record["status"] for record in ran.json["records"]] == ["completed", "completed"]
    assert bench.records()[0]["matching"]["measured"] == {}, (
        "what was matched was matched for another model"
    )
    measured = bench("measure", "my-model", "--task", "forcefield", "--rotations", "2", "--json")
    assert measured.code == 0, measured.err
    # Raw relative vectors through a general linear map: no rotation symmetry.
    assert measured.json["share"] > 1e-6


@pytest.mark.slow
def test_the_task_trains_both_arms_and_knows_their_symmetry(tmp_path: Path) -> None:
    bench = installed(tmp_path, EXAMPLES["task"] + DIPOLE_MODELS)
    ran = bench("run", "dipole/mine", "--preset", "dev", "--threads", "1", "--json")
    assert ran.code == 0, ran.err
    found = {record["arm"]: record for record in bench.records()}
    assert found["equivariant"]["model"]["symmetry_verified"] is True
    assert found["augmented"]["final"]["share"] > 1e-3, (
        "a perceptron on coordinates after 200 steps"
    )
    for record in found.values():
        assert record["final_on_part"]["total"] < record["trace"][0]["test"]["total"], (
            "it has begun to learn"
        )
    assert found["augmented"]["dataset"]["sizes"] == {"train": 500, "validation": 500, "test": 500}
    listed = bench("list", "tasks", "--json")
    assert {"name": "dipole", "board_unit": "(e A)^2"}.items() <= next(
        t for t in listed.json if t["name"] == "dipole"
    ).items()
    prepared = bench("data", "verify", "point-charges")
    assert prepared.code == 0, prepared.err


@pytest.mark.slow
def test_samples_of_different_sizes_train_both_arms(tmp_path: Path) -> None:
    bench = installed(tmp_path, EXAMPLES["clouds"] + CLOUD_MODELS)
    ran = bench("run", "pull/mine", "--preset", "dev", "--threads", "1", "--json")
    assert ran.code == 0, ran.err
    found = {record["arm"]: record for record in bench.records()}
    assert found["equivariant"]["model"]["symmetry_verified"] is True
    for record in found.values():
        assert record["final_on_part"]["total"] < record["trace"][0]["test"]["total"], (
            "it has begun to learn"
        )
    assert found["augmented"]["dataset"]["sizes"] == {"train": 400, "validation": 400, "test": 400}


@pytest.mark.slow
def test_the_kernel_is_held_against_the_reference(tmp_path: Path) -> None:
    bench = installed(tmp_path, EXAMPLES["kernel"], linear=LINEAR)
    command = ("kernels", "linear-c64-l2", "--backend", "mine", "--quick", "--threads", "1")
    timed = bench(*command, "--json")
    assert timed.code == 0, timed.err
    (tmp_path / "site" / "my_package" / "linear.py").write_text(
        LINEAR.replace("@ w.view(a, b)", "@ (1.001 * w.view(a, b))")
    )
    wrong = bench(*command, "--mode", "forward")
    assert wrong.code == 3, "a kernel that is a tenth of a per cent off is no kernel"
