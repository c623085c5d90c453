"""Periodic neighbour lists against a search over many images, against ASE's, and the symmetries
that they must have."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from equivbench.errors import UsageError
from equivbench.kernels.neighbours import edges_within
from equivbench.kernels.periodic_neighbours import periodic_edges_within
from equivbench.symmetry.rotations import random_rotations
from equivbench.tasks.forcefield.crystals import CRYSTALS

SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=3)
SEEDS = st.integers(0, 2**31)
WAYS = st.tuples(st.booleans(), st.booleans(), st.booleans())
CUTOFF = 2.5
LEAST = 0.7
"""Singular value of a cell, which no distance between lattice planes is below."""
FARTHEST = 7
"""Images each way: 2.5 / 0.7, rounded up, and 3 cells from an atom to another."""


def crystals(sizes: list[int], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """(positions, batch, cells) of skewed cells, most of them smaller than the cutoff, with atoms
    up to a cell and a half away from them."""
    generator = torch.Generator().manual_seed(seed)
    cell = 2.0 * torch.eye(3, dtype=torch.float64)
    cell = cell + 0.5 * torch.randn(len(sizes), 3, 3, generator=generator, dtype=torch.float64)
    batch = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    fractions = 3 * torch.rand(len(batch), 3, generator=generator, dtype=torch.float64) - 1.5
    return torch.einsum("nk,nki->ni", fractions, cell[batch]), batch, cell


def brute_force(
    pos: Tensor, batch: Tensor, cell: Tensor, pbc: Tensor
) -> dict[tuple[int, ...], float]:
    """Distance by (source, target, shift)."""
    found = {}
    for which in range(len(cell)):
        ways = [range(-FARTHEST, FARTHEST + 1) if each else (0,) for each in pbc[which].tolist()]
        shifts = torch.tensor(list(itertools.product(*ways)))
        atoms = (batch == which).nonzero().flatten().tolist()
        for source, target in itertools.product(atoms, atoms):
            apart = pos[source] + shifts.double() @ cell[which] - pos[target]
            lengths = apart.norm(dim=1)
            near = lengths < CUTOFF
            for shift, length in zip(shifts[near].tolist(), lengths[near].tolist(), strict=True):
                if source != target or any(shift):
                    found[source, target, *shift] = length
    return found


def as_keys(edges: Tensor, shifts: Tensor) -> list[tuple[int, ...]]:
    return [tuple(each) for each in torch.cat([edges.T, shifts], dim=1).tolist()]


@given(SIZES, SEEDS, WAYS)
@settings(max_examples=40, deadline=None)
def test_edges_are_those_of_a_search_over_many_images(
    sizes: list[int], seed: int, ways: tuple[bool, bool, bool]
) -> None:
    pos, batch, cell = crystals(sizes, seed)
    assume(float(torch.linalg.svdvals(cell).min()) > LEAST)
    pbc = torch.tensor([ways] * len(sizes))
    expected = brute_force(pos, batch, cell, pbc)
    assume(all(abs(length - CUTOFF) > 1e-9 for length in expected.values()))
    found = as_keys(*periodic_edges_within(pos, batch, cell, pbc, CUTOFF))
    assert sorted(found) == sorted(expected)
    assert found == sorted(found, key=lambda key: (key[1], key[0], *key[2:]))


@given(SIZES, SEEDS, st.integers(1, 8))
@settings(max_examples=20, deadline=None)
def test_a_limit_keeps_the_nearest_images(sizes: list[int], seed: int, most: int) -> None:
    pos, batch, cell = crystals(sizes, seed)
    assume(float(torch.linalg.svdvals(cell).min()) > LEAST)
    pbc = torch.ones(len(sizes), 3, dtype=torch.bool)
    lengths = brute_force(pos, batch, cell, pbc)
    kept = as_keys(*periodic_edges_within(pos, batch, cell, pbc, CUTOFF, most))
    for target in range(len(pos)):
        own = sorted(length for key, length in lengths.items() if key[1] == target)[:most]
        # An image and its mirror image are equally far, so lengths say what keys may not.
        assert sorted(lengths[key] for key in kept if key[1] == target) == pytest.approx(own)


@given(SIZES, SEEDS)
@settings(max_examples=20, deadline=None)
def test_neither_turning_a_crystal_nor_wrapping_its_atoms_changes_the_vectors(
    sizes: list[int], seed: int
) -> None:
    pos, batch, cell = crystals(sizes, seed)
    assume(float(torch.linalg.svdvals(cell).min()) > LEAST)
    pbc = torch.ones(len(sizes), 3, dtype=torch.bool)

    def vectors(pos: Tensor, cell: Tensor) -> Tensor:
        edges, shifts = periodic_edges_within(pos, batch, cell, pbc, CUTOFF)
        moved = torch.einsum("ek,eki->ei", shifts.double(), cell[batch[edges[1]]])
        found = torch.cat([edges.T.double(), pos[edges[0]] + moved - pos[edges[1]]], dim=1)
        # In an order that rounding does not change.
        return found[(found * torch.tensor([1e6, 1e3, 1.0, 0.37, 0.11])).sum(1).argsort()]

    lengths = torch.tensor(list(brute_force(pos, batch, cell, pbc).values()))
    assume(bool(((lengths - CUTOFF).abs() > 1e-9).all()))
    before = vectors(pos, cell)
    fractions = torch.einsum("ni,nik->nk", pos, torch.linalg.inv(cell)[batch])
    wrapped = pos - torch.einsum("nk,nki->ni", fractions.floor(), cell[batch])
    assert torch.allclose(vectors(wrapped, cell), before, atol=1e-9)
    (turn,) = random_rotations(1, generator=torch.Generator().manual_seed(seed), dtype=pos.dtype)
    turned = vectors(pos @ turn.T, cell @ turn.T)
    turned[:, 2:] = turned[:, 2:] @ turn
    order = (turned * torch.tensor([1e6, 1e3, 1.0, 0.37, 0.11])).sum(1).argsort()
    assert torch.allclose(turned[order], before, atol=1e-9)


@pytest.mark.parametrize("crystal", CRYSTALS, ids=lambda crystal: crystal.name)
@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True), (False, False, True)])
def test_edges_of_real_crystals_are_those_of_ase(crystal: Any, pbc: tuple[bool, ...]) -> None:
    pytest.importorskip("ase", reason="ASE is not installed (extra 'ase')")
    from ase import Atoms
    from ase.neighborlist import neighbor_list

    atoms = Atoms(
        crystal.elements, cell=crystal.lattice, pbc=pbc, scaled_positions=crystal.fractions
    )
    # No shell of a perfect crystal here is this far.
    target, source, shift = neighbor_list("ijS", atoms, 6.05)
    edges, shifts = periodic_edges_within(
        torch.tensor(atoms.positions),
        torch.zeros(len(atoms), dtype=torch.int64),
        torch.tensor(atoms.cell.array)[None],
        torch.tensor([pbc]),
        6.05,
    )
    theirs = zip(source.tolist(), target.tolist(), *shift.T.tolist(), strict=True)
    assert sorted(as_keys(edges, shifts)) == sorted(theirs)


def test_without_repetition_they_are_those_of_molecules() -> None:
    pos, batch, cell = crystals([3, 1, 4], 0)
    never = torch.zeros(3, 3, dtype=torch.bool)
    for most in (None, 2):
        expected = edges_within(pos, batch, CUTOFF, most)
        for lattice in (cell, torch.zeros_like(cell)):
            edges, shifts = periodic_edges_within(pos, batch, lattice, never, CUTOFF, most)
            assert torch.equal(edges, expected)
            assert not bool(shifts.any())


def test_an_atom_alone_in_its_cell_has_its_own_images_and_not_itself() -> None:
    cell = 2 * torch.eye(3)[None]
    edges, shifts = periodic_edges_within(
        torch.tensor([[0.3, -7.0, 5.0]]),
        torch.zeros(1, dtype=torch.int64),
        cell,
        torch.ones(1, 3, dtype=torch.bool),
        2.1,
    )
    assert edges.tolist() == [[0] * 6, [0] * 6]
    assert sorted(shifts.abs().sum(1).tolist()) == [1] * 6


@pytest.mark.parametrize(
    "cell", [torch.zeros(3, 3), torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]])]
)
def test_a_cell_that_spans_too_little_is_a_usage_error(cell: Tensor) -> None:
    atom = torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(UsageError, match="give a cell that spans"):
        periodic_edges_within(*atom, cell[None], torch.ones(1, 3, dtype=torch.bool), 3.0)
