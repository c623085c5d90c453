"""The figure of backbones: what it draws is what it was given, turned and never mirrored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from equivbench.report.figures import save_figure
from equivbench.studies.flow_samples.structure import Traces, draw_structures, structure_statistics

pytest.importorskip("matplotlib")


def helices(count: int, residues: int, label: str) -> Traces:
    """Right-handed alpha helices of random orientation and length; NaN in the padding."""
    generator = np.random.default_rng(residues)
    k = np.arange(residues)
    helix = np.stack(
        [2.3 * np.cos(np.radians(100) * k), 2.3 * np.sin(np.radians(100) * k), 1.5 * k], axis=-1
    )
    turns = [np.linalg.qr(generator.normal(size=(3, 3)))[0] for _ in range(count)]
    positions = np.stack([helix @ (turn * np.sign(np.linalg.det(turn))) for turn in turns])
    mask = k < generator.integers(8, residues + 1, size=count)[:, None]
    return Traces(np.where(mask[..., None], positions, np.nan), mask, label)


def test_traces_keep_their_lengths_and_their_hand() -> None:
    figure = draw_structures(
        helices(7, 30, "sample"), helices(3, 20, "test chain"), title="some model"
    )
    traces = [axes for axes in figure.axes if axes.name == "3d"]
    # Five of seven, and all of three.
    assert [axes.get_title().split(":")[0] for axes in traces] == ["sample"] * 5 + [
        "test chain"
    ] * 3
    for axes in traces:
        # Line3DCollection has no public way to its points.
        segments = np.asarray(axes.collections[0]._segments3d)  # type: ignore[attr-defined]
        chain = np.concatenate([segments[:, 0], segments[-1:, 1]])[None]
        assert axes.get_title().split()[-5] == str(chain.shape[1])
        found = structure_statistics(chain, np.ones(chain.shape[:2], dtype=bool))
        assert (found.helix_right, found.helix_left) == (1.0, 0.0)
        assert chain[0, 0, 0] <= chain[0, -1, 0]


def test_it_writes_the_format_of_the_suffix_and_takes_a_single_chain(tmp_path: Path) -> None:
    figure = draw_structures(helices(1, 12, "sample"), helices(1, 12, "test chain"), title="one")
    path = save_figure(figure, tmp_path / "s.svg")
    assert path.read_text().startswith("<?xml")
