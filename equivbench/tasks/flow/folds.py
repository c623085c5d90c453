"""How near the folds of two sets of backbones of equal length come: distances after the best
superposition, residue by residue, without gaps and never onto a mirror image. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equivbench.tasks.archives import show_progress

Array = NDArray[np.float64]
NEAREST = 20
"""Backbones of the smallest RMSD for which the TM-score is worked out: its best superposition is
near that of the RMSD where two are alike."""


def centred(ca: NDArray[np.floating]) -> Array:
    """``ca`` [..., residues, 3] about the mean of the residues, in float64."""
    exact = np.asarray(ca, dtype=np.float64)
    return np.asarray(exact - exact.mean(axis=-2, keepdims=True))


class SuperposedOnto:
    """Backbones ``ca`` [m, residues, 3], prepared to be compared with others of their length, one
    at a time."""

    def __init__(self, ca: NDArray[np.floating]) -> None:
        self.ca = centred(ca)
        # [3 m, residues], so that all products with one backbone are a matrix product.
        self._rows = np.ascontiguousarray(self.ca.transpose(0, 2, 1)).reshape(-1, self.ca.shape[1])
        self._squares = np.square(self.ca).sum((1, 2))

    def rmsd(self, one: NDArray[np.floating]) -> Array:
        """[m] the root mean square distance of the residues of ``one`` [residues, 3] from those of
        each, after the proper rotation and the shift that make it least (Kabsch 1976), in their
        unit."""
        own = centred(one)
        products = (self._rows @ own).reshape(-1, 3, 3)
        singular = np.linalg.svd(products, compute_uv=False)
        # Where the best orthogonal matrix is a mirror, the least of the three turns its sign.
        hand = np.sign(np.linalg.det(products))
        overlap = singular[:, 0] + singular[:, 1] + hand * singular[:, 2]
        square = (self._squares + np.square(own).sum() - 2 * overlap) / len(own)
        return np.asarray(np.sqrt(square.clip(min=0)))


def rotation_onto(one: Array, other: Array) -> Array:
    """[3, 3] the proper rotation R with which ``one @ R.T`` is nearest to ``other``, both
    [residues, 3] and centred."""
    left, _, right = np.linalg.svd(other.T @ one)
    left[:, 2] *= np.sign(np.linalg.det(left @ right))
    return np.asarray(left @ right)


def tm_score(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """The TM-score (Zhang & Skolnick 2004) of two backbones [residues, 3] in A, residue by residue
    at the superposition of the least RMSD: at most the published one, whose superposition is the
    best for it. Above 0.5 two have the same fold (Xu & Zhang 2010).

    The length must be above 18 residues, from which on its scale is above 0.
    """
    own, theirs = centred(one), centred(other)
    scale = 1.24 * (len(own) - 15) ** (1 / 3) - 1.8
    apart = np.linalg.norm(own @ rotation_onto(own, theirs).T - theirs, axis=1)
    return float(np.mean(1 / (1 + np.square(apart / scale))))


@dataclass(frozen=True)
class Nearest:
    """Of each of some backbones, [backbones]: the least RMSD in A from any of another set, and the
    largest TM-score."""

    rmsd: Array
    tm: Array


def nearest(some: NDArray[np.floating], others: NDArray[np.floating]) -> Nearest:
    """Of each of ``some`` [n, residues, 3] in A the nearest of ``others`` [m, residues, 3]."""
    known = SuperposedOnto(others)
    rmsd, tm = np.empty(len(some)), np.empty(len(some))
    for index, one in enumerate(some):
        distances = known.rmsd(one)
        first = np.argsort(distances, kind="stable")[:NEAREST]
        rmsd[index] = distances[first[0]]
        tm[index] = max(tm_score(one, known.ca[other]) for other in first)
        show_progress(index + 1, len(some), "folds compared")
    return Nearest(rmsd, tm)
