"""The voxel grids (size, resolution, the width of an atom and the noise that belongs to them), and
the table of conformers: its columns, how those that fit a grid at every rotation are gathered, and
what the cards say of them. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivbench.tasks.physical import CLOSEST, TOO_NEAR, closest
from equivbench.tasks.storage import (
    Layout,
    RaggedColumn,
    RaggedTable,
    TableBuilder,
    plain,
    split_rule,
)

ELEMENTS = ("H", "C", "N", "O", "F", "S", "Cl", "Br")
"""The element of each channel, as in VoxMol's GEOM-drugs runs (in another order); molecules with
others are left out."""
NUMBERS = (1, 6, 7, 8, 9, 16, 17, 35)
"""Their atomic numbers."""
RADIUS = 0.5
"""A, of every atom, as published."""
MARGIN = 1.0
"""A, between a molecule's bounding sphere and the box: at it an atom's density is down to 1%, at
every rotation."""


@dataclass(frozen=True)
class Grid:
    """A cube of ``size``^3 voxels, ``resolution`` A wide, about the origin; voxel i has its centre
    at (i - (size - 1)/2) times the resolution, so that the 24 rotations of the cube permute voxels.

    ``radius`` (A) is every atom's, ``sigma`` the standard deviation of the noise on each voxel.
    """

    size: int
    resolution: float
    radius: float
    sigma: float

    @property
    def box(self) -> float:
        """Edge of the cube, A."""
        return self.size * self.resolution

    def holds(self, bounding_radius: float) -> bool:
        """Whether a sphere of this radius (A) about the origin leaves ``MARGIN`` to the faces, so
        at every rotation."""
        return bool(bounding_radius + MARGIN <= self.box / 2)

    def numbers(self) -> tuple[float, float, float, float]:
        """(size, resolution, radius, sigma), a row of a batch's ``grid``; :meth:`of` reads it
        back."""
        return (float(self.size), self.resolution, self.radius, self.sigma)

    @staticmethod
    def of(size: float, resolution: float, radius: float, sigma: float) -> Grid:
        """The grid of a row of a batch's ``grid``."""
        return Grid(int(size), resolution, radius, sigma)


def standard(size: int, resolution: float) -> Grid:
    """The grid of that size and resolution (A) with atoms of the published radius and the published
    noise per atom.

    An atom covers volume / resolution^3 voxels, so its signal-to-noise ratio goes as
    resolution^-1.5 / sigma: the published sigma of .9 at .25 A becomes .9 (.25/h)^1.5 at another
    resolution h, .318 at .5 A. A deviation from the published task, whose grids all have .25 A.
    """
    return Grid(size, resolution, RADIUS, 0.9 * (0.25 / resolution) ** 1.5)


DEV = standard(16, 0.5)
SMALL = standard(24, 0.5)
PUBLISHED = standard(64, 0.25)

UNIT = 1e-3
"""A: one step of the stored positions, which are about the centre of the conformer's smallest
ball."""
LAYOUT = Layout(
    kind="conformer",
    columns={
        "pos": RaggedColumn("item", np.int16, (3,)),
        "channel": RaggedColumn("item", np.uint8),
        "n_atoms": RaggedColumn("sample", np.int16),
        "molecule": RaggedColumn("sample", np.int32),
        "split": RaggedColumn("sample", np.uint8),
        "names": RaggedColumn("unit", np.bytes_),
    },
    unit="molecule",
    items="atoms",
    positions="pos",
    samples="conformers",
    units={
        "pos": "0.001 A, from the centre of the smallest ball",
        "channel": "element: " + " ".join(ELEMENTS),
    },
    split_rule=split_rule("by molecule", "the canonical SMILES"),
)


def bounding_radii(table: RaggedTable) -> NDArray[np.float64]:
    """[samples] A: of the sphere about the origin that holds the conformer."""
    distances = UNIT * np.linalg.norm(table["pos"].astype(np.float64), axis=1)
    return np.maximum.reduceat(distances, table.first) if len(table.first) else np.zeros(0)


class ConformerBuilder(TableBuilder):
    """Gathers conformers; those that ``grid`` cannot show at every rotation are left out and
    counted."""

    def __init__(self, grid: Grid) -> None:
        super().__init__(LAYOUT)
        self._grid = grid

    def add(
        self,
        name: str,
        z: NDArray[np.integer],
        pos: NDArray[np.floating],
        split: str | None = None,
        identity: str | None = None,
    ) -> bool:
        """Add a conformer of the molecule ``name``: z [atoms], pos [atoms, 3] A; whether it was
        kept.

        ``identity`` tells molecules apart where one may have several names (default: the name);
        ``split`` is None for the split that it draws.
        """
        if not len(z) or pos.shape != (len(z), 3) or not np.isfinite(pos).all():
            self.left_out["without sound positions"] += 1
            return False
        if not np.isin(z, NUMBERS).all():
            self.left_out[f"with elements other than {' '.join(ELEMENTS)}"] += 1
            return False
        if closest(pos) < CLOSEST:
            self.left_out[TOO_NEAR] += 1
            return False
        centre, radius = smallest_ball(pos)
        if not self._grid.holds(radius + UNIT):
            self.left_out[
                f"too large for the {self._grid.box:g} A box less {MARGIN:g} A of margin"
            ] += 1
            return False
        self.add_samples(
            name,
            np.array([len(z)]),
            split,
            identity=identity,
            pos=np.rint((pos - centre) / UNIT),
            channel=np.searchsorted(NUMBERS, z),
        )
        return True


def facts(table: RaggedTable, grid: Grid) -> tuple[dict[str, Any], str]:
    """What the cards say of the content: for programs and for people."""
    counts = np.bincount(table["channel"], minlength=len(ELEMENTS))
    elements = dict(zip(ELEMENTS, counts.tolist(), strict=True))
    radii = [round(float(q), 3) for q in np.quantile(bounding_radii(table), [0.5, 0.9, 1.0])]
    box = f"{grid.box:g} A; smallest ball plus {MARGIN:g} A of margin fits it"
    card = {"elements": elements, "bounding_radius_p50_p90_max": radii, "box": box}
    summary = f"""{len(table["channel"])} atoms, {{bytes}} bytes, SHA-256 `{{sha256}}`.
Atoms per element: {plain(elements)}.
Radius of the smallest ball p50/p90/max {"/".join(map(str, radii))} A; chosen for a box of {box}."""
    return card, summary


TOLERANCE = 1e-9
"""Relative slack of "inside": far above rounding in float64, far below the 1 mA of stored
positions."""


def smallest_ball(points: NDArray[np.floating]) -> tuple[NDArray[np.float64], float]:
    """(centre [3], radius) of the smallest ball that holds ``points`` [n, 3], n >= 1; exact to
    rounding.

    At most four points on the ball's surface determine it. From the ball of one point, the point
    farthest outside is brought in and the ball of the surface points and this one solved anew; the
    radius grows each time, so this ends (an LP-type problem: Matousek, Sharir & Welzl 1996).
    """
    exact = points.astype(np.float64)
    surface: tuple[int, ...] = (0,)
    centre, radius = exact[0], 0.0
    while True:
        distances = np.linalg.norm(exact - centre, axis=1)
        farthest = int(distances.argmax())
        if distances[farthest] <= radius * (1 + TOLERANCE) + TOLERANCE:
            return centre, float(distances[farthest])
        surface, centre, radius = _ball_with(exact, surface, farthest)


def _ball_with(
    points: NDArray[np.float64], surface: Sequence[int], new: int
) -> tuple[tuple[int, ...], NDArray[np.float64], float]:
    """(surface points, centre, radius) of the smallest ball round ``surface`` and ``new``, which
    lies outside theirs.

    ``new`` is then on the surface, with one to three of the others.
    """
    everything = points[[*surface, new]]
    best: tuple[tuple[int, ...], NDArray[np.float64], float] | None = None
    for size in (1, 2, 3):
        for others in combinations(surface, size):
            centre, radius = _circumscribed(points[[new, *others]])
            if best is not None and radius >= best[2]:
                continue
            if (
                np.linalg.norm(everything - centre, axis=1).max()
                <= radius * (1 + TOLERANCE) + TOLERANCE
            ):
                best = ((new, *others), centre, radius)
    assert best is not None, "four of five points determine their smallest ball"
    return best


def _circumscribed(corners: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """(centre, radius) of the smallest sphere through ``corners`` [k, 3]: |c - p_i| alike for all
    i, c in their plane."""
    edges = corners[1:] - corners[0]
    # c - p_0 = edges^T a with 2 edges (c - p_0) = |edges|^2; least squares where corners coincide
    # or lie on a line.
    weights = np.linalg.lstsq(2 * edges @ edges.T, (edges**2).sum(1), rcond=None)[0]
    offset = weights @ edges
    return corners[0] + offset, float(np.linalg.norm(offset))
