"""The voxel grids: size, resolution, the width of an atom and the noise that belongs to them.
Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

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
