"""PDB files of samples: every coordinate in its columns, every chain a model of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from equivbench.errors import FailedError
from equivbench.studies.flow_samples.structure import write_pdb


def test_chains_come_back_from_the_columns_of_the_format(tmp_path: Path) -> None:
    positions = np.random.default_rng(0).uniform(-999, 999, size=(3, 12, 3))
    mask = np.arange(12) < np.array([12, 1, 7])[:, None]
    positions[~mask] = np.nan
    text = write_pdb(tmp_path / "samples.pdb", positions, mask).read_text()
    models = text.split("MODEL ")[1:]
    assert len(models) == 3
    for model, trace, exists in zip(models, positions, mask, strict=True):
        atoms = [line for line in model.splitlines() if line.startswith("ATOM")]
        # Columns 31-54 of the format, three decimals.
        read = [[float(line[start : start + 8]) for start in (30, 38, 46)] for line in atoms]
        np.testing.assert_allclose(read, trace[exists], atol=5.001e-4)
        assert [int(line[22:26]) for line in atoms] == list(range(1, 1 + exists.sum()))
        assert {(line[12:16], line[17:20], line[76:78]) for line in atoms} == {
            (" CA ", "GLY", " C")
        }
    assert text.endswith("ENDMDL\nEND\n")


def test_a_coordinate_too_large_for_its_columns_is_refused_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    positions = np.zeros((2, 4, 3))
    positions[1, 2, 0] = -1e4
    with pytest.raises(FailedError, match="sample 2 has coordinates beyond"):
        write_pdb(tmp_path / "samples.pdb", positions, np.ones((2, 4), dtype=bool))
    assert list(tmp_path.iterdir()) == []
