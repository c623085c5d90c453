"""Sequences that have a stretch in common are one family, wherever in them it lies."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from structure_files import mutated, sequence

from equivbench.tasks.flow.families import PIECE, families, pieces


@given(st.integers(1, 2000))
def test_pieces_cover_a_sequence_and_overlap_by_half(residues: int) -> None:
    found = [*pieces(residues, PIECE)]
    assert found[0][0] == 0
    assert found[-1][1] == residues
    assert {stop - start for start, stop in found} == {min(residues, PIECE)}
    assert all(
        0 < after[0] - before[0] <= PIECE // 2 for before, after in itertools.pairwise(found)
    )


def test_long_chains_that_share_one_domain_are_a_family_and_others_are_not() -> None:
    # 90 of some 500 residues: alignments of the whole chains are at 20% identity and below.
    domain = sequence(90, 1)
    one = sequence(217, 2) + domain + sequence(200, 3)
    other = sequence(35, 4) + mutated(domain, 0.25, 5) + sequence(380, 6)
    alone = sequence(500, 7)
    labels = families([one, other, alone])
    assert labels[0] == labels[1] != labels[2]


def test_families_are_linked_by_what_lies_between() -> None:
    first, second = sequence(80, 10), sequence(80, 11)
    ends = [first + sequence(100, 12), sequence(150, 13) + second]
    assert len(set(families(ends).tolist())) == 2
    assert len(set(families([*ends, first + second]).tolist())) == 1


def test_a_short_chain_belongs_to_the_long_one_that_has_it() -> None:
    short = sequence(44, 20)
    long = sequence(300, 21) + mutated(short, 0.3, 22) + sequence(100, 23)
    labels = families([short, long, sequence(44, 24)])
    assert labels[0] == labels[1] != labels[2]


def test_sequences_drawn_by_chance_are_families_of_their_own() -> None:
    found = [sequence(60 + 20 * seed, 100 + seed) for seed in range(25)]
    assert len(set(families(found).tolist())) == len(found)


def test_equal_sequences_have_one_label_and_the_order_does_not_matter() -> None:
    bases = [sequence(70 + 10 * seed, 200 + seed) for seed in range(6)]
    found = [*bases, *(mutated(base, 0.3, 300) for base in bases), bases[2]]
    labels = families(found)
    assert labels[2] == labels[-1]
    assert (labels[:6] == labels[6:12]).all()
    order = np.random.default_rng(0).permutation(len(found))
    again = families([found[index] for index in order])
    assert len(set(zip(labels[order].tolist(), again.tolist(), strict=True))) == 6
