"""Rotations and the decomposition, at the size of one evaluation of the quick-start pair."""

from __future__ import annotations

from functools import cache

import torch

from equivbench.symmetry.decomposition import Decomposition, decompose
from equivbench.symmetry.rotations import random_rotations
from equivbench.symmetry.types import SymmetryType

ATOMS = 10_000


@cache
def predictions(rotations: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(pulled-back predictions [rotations, atoms, 3], targets [atoms, 3], molecule of each atom
    [atoms])."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(ATOMS, 3, generator=generator)
    return torch.randn(rotations, ATOMS, 3, generator=generator), target, torch.arange(ATOMS) // 25


@cache
def rotations() -> torch.Tensor:
    """A rotation for every atom [atoms, 3, 3]."""
    torch.set_num_threads(1)
    return random_rotations(ATOMS, generator=torch.Generator().manual_seed(0))


class Rotations:
    """Drawing Haar rotations and applying them."""

    version = "2"
    timeout = 120

    def setup(self) -> None:
        """Once a process: asv repeats ``setup`` before every sample."""
        self.rotations = rotations()
        self.vectors = predictions(2)[1]

    def time_draw_10k(self) -> None:
        """Ten thousand Haar rotations, ten times over (a sample is at least 10 ms)."""
        for _ in range(10):
            random_rotations(ATOMS)

    def time_rotate_10k_vectors(self) -> None:
        """Ten thousand vectors, in float64 and back, a hundred times over."""
        act = SymmetryType.parse("1o").act
        for _ in range(100):
            act(self.vectors, self.rotations)


@cache
def decomposed(rotations: int) -> Decomposition:
    """What intervals are taken of."""
    pulled_back, target, groups = predictions(rotations)
    return decompose(pulled_back, target, groups=groups)


class Decompose:
    """The estimators and their interval."""

    version = "2"
    timeout = 120
    params = (4, 24)
    param_names = ("rotations",)

    def setup(self, rotations: int) -> None:
        """Predictions of 10,000 atoms in 400 molecules."""
        self.data = predictions(rotations)
        self.decomposition = decomposed(rotations)

    def time_decompose(self, rotations: int) -> None:
        """Ten times over."""
        pulled_back, target, groups = self.data
        for _ in range(10):
            decompose(pulled_back, target, groups=groups)

    def time_interval(self, rotations: int) -> None:
        """The bootstrap interval of the share, twice over."""
        for _ in range(2):
            self.decomposition.interval()
