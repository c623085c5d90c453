"""docs/plugins.md, followed to the letter: a model of another package runs against a built-in arm, and is measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from running import Bench

DOCUMENT = Path(__file__).parents[2] / "docs" / "plugins.md"
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


@pytest.mark.slow
def test_the_documented_plugin_runs_and_is_measured(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    package = tmp_path / "site" / "my_package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "network.py").write_text(NETWORK)
    (package / "equivbench_plugin.py").write_text(re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[0])
    bench.entry_point("my_package.equivbench_plugin", "my-package")
    ran = bench("run", "forcefield/mine", "--preset", "dev", "--budget", "4steps", "--threads", "1", "--json")
    assert ran.code == 0, ran.err
    assert [record["status"] for record in ran.json["records"]] == ["completed", "completed"]
    measured = bench("measure", "my-model", "--task", "forcefield", "--rotations", "2", "--json")
    assert measured.code == 0, measured.err
    # Raw relative vectors through a general linear map: no rotation symmetry.
    assert measured.json["share"] > 1e-6
