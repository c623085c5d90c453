"""Models in metatomic's format as models of the force-field task."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("metatomic_ase", reason="metatomic is not installed (extra 'metatomic')")

from molecules import molecules
from pair_energies import pair_forces
from toy_metatomic import pair_model, saved

import equivbench as eb
from equivbench.errors import FailedError
from equivbench.execution.loading import find_model


def test_a_model_and_its_file_give_the_forces_of_the_energy(tmp_path: Path) -> None:
    sample = molecules()
    inputs = {name: sample[name] for name in ("z", "pos", "batch")}
    forces = pair_forces(**inputs)
    found = find_model(f"metatomic:{saved(tmp_path)}")
    assert found.task == "forcefield"
    for model in (eb.adapt(pair_model()), found.model):
        assert torch.allclose(model(**inputs)["forces"], forces, atol=1e-12)


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match=r"none.pt is not there"):
        find_model(f"metatomic:{tmp_path / 'none.pt'}")
    (tmp_path / "text.pt").write_text("no model")
    with pytest.raises(FailedError, match=r"text.pt cannot be used as a metatomic model"):
        find_model(f"metatomic:{tmp_path / 'text.pt'}")
    with pytest.raises(FailedError, match="cannot be used as a metatomic model"):
        eb.adapt(pair_model(), energy=False)  # it predicts no forces
