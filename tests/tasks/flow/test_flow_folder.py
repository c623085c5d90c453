"""A user's folder of structures: what is read, what is left out and how that is said, and what the
cache holds."""

import gzip
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from structure_files import fill, mmcif, pdb, pdb_atoms, rna, sequence, trace

from equivbench.errors import EquivbenchWarning, FailedError
from equivbench.tasks.archives import read_card
from equivbench.tasks.flow import chains as traces
from equivbench.tasks.flow.residues import UnusableFileError
from equivbench.tasks.flow.sources import ca_folder
from equivbench.tasks.flow.table import LAYOUT, PER_ANGSTROM

GOOD = pdb(sequence(60, 100), trace(60, 100))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EQUIVBENCH_DATA_CA_FOLDER", str(tmp_path / "mine"))
    return tmp_path / "mine"


def files_in(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]


def test_all_formats_give_the_chains_that_were_written(folder: Path) -> None:
    written = fill(folder)
    table, card = LAYOUT.read(ca_folder().prepare())
    assert len(table["name"]) == len(written)
    first = table["n_residues"].cumsum() - table["n_residues"]
    for name, start, residues in zip(table["name"], first, table["n_residues"], strict=True):
        letters, ca = written[name.decode().removesuffix("_A")]
        assert bytes(table["letter"][start : start + residues]).decode() == letters
        # Half of the .01 A of storage, and half of the .001 A of the files and of their mean.
        stored = table["ca"][start : start + residues] / PER_ANGSTROM
        assert np.abs(stored - (ca - ca.mean(0))).max() < 0.0061
    data = ca_folder().load()
    assert {name: len(data.split(name)) for name in card["sizes"]} == card["sizes"]
    assert data.card.sha256 == ca_folder().verify() == card["sha256"]
    # nm: neighbours are .38 apart.
    batch = data.train.collate(torch.arange(3))
    steps = batch["x1"].diff(dim=1).norm(dim=-1)[batch["mask"][:, 1:]]
    assert torch.allclose(steps, torch.tensor(0.38), atol=2e-3)


BAD = {
    "empty.pdb": (b"", "empty"),
    "blank.cif": (b"\n \n", "empty"),
    "rna.pdb": (rna().encode(), "no protein"),
    "words.cif": (b"this is not a structure\n", "not valid"),
    "words.pdb": (b"this is not a structure\n", "no atoms"),
    "cut.cif": (mmcif(sequence(60, 7), trace(60, 7)).encode()[:-400], "not valid"),
    "cut.pdb": (GOOD.encode()[: 50 * 81 + 40], "not valid"),
    "binary.pdb": (bytes(range(256)) * 20, "no atoms"),
    "nan.pdb": (GOOD.replace(GOOD[30:54], "     nan     nan     nan").encode(), None),
    "half.cif.gz": (
        gzip.compress(mmcif(sequence(60, 8), trace(60, 8)).encode())[:-300],
        "broken gzip",
    ),
    "text.pdb.gz": (GOOD.encode(), "broken gzip"),
    "short.pdb": (pdb(sequence(39, 9), trace(39, 9)).encode(), "no unbroken chain"),
    "gaps.pdb": (pdb(sequence(60, 10), 2 * trace(60, 10)).encode(), "no unbroken chain"),
}


def test_unusable_files_are_left_out_with_one_warning_that_names_them_and_the_rest_is_used(
    folder: Path,
) -> None:
    written = fill(folder)
    bad = {name: (content, reason) for name, (content, reason) in BAD.items() if reason is not None}
    for name, (content, _) in bad.items():
        (folder / name).write_bytes(content)
    with pytest.warns(EquivbenchWarning) as caught:
        path = ca_folder().prepare()
    (warning,) = caught
    message = str(warning.message)
    assert f"{len(bad)} of {len(written) + len(bad)} files" in message
    assert f"and {len(bad) - 5} more" in message
    assert sum(name in message for name in bad) == 5
    table, card = LAYOUT.read(path)
    assert len(table["name"]) == len(written)
    assert sum(card["recipe"]["files left out"].values()) == len(bad)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ca_folder().prepare() == path


@pytest.mark.parametrize(("name", "case"), BAD.items())
def test_each_kind_of_unusable_file_says_what_is_wrong_with_it(
    tmp_path: Path, name: str, case: tuple[bytes, str | None]
) -> None:
    content, reason = case
    (tmp_path / name).write_bytes(content)
    if reason is None:
        # A place that is not a number is a gap: 59 residues are left.
        (chain,) = traces.chains_of(traces.content_of(tmp_path / name), name, "X")
        assert (chain.start, len(chain.sequence)) == (1, 59)
        return
    with pytest.raises(UnusableFileError, match=reason):
        traces.chains_of(traces.content_of(tmp_path / name), name, "X")


@pytest.mark.parametrize("packed", [False, True])
def test_an_enormous_file_is_left_out_unread(
    folder: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    fill(folder)
    monkeypatch.setattr(traces, "MOST_BYTES", 20_000)
    enormous = b"REMARK\n" * 10_000
    (folder / ("big.pdb.gz" if packed else "big.pdb")).write_bytes(
        gzip.compress(enormous) if packed else enormous
    )
    with pytest.warns(
        EquivbenchWarning, match=r"1 of 31 files .* left out \(larger than 0.02 MB: 1\): big\.pdb"
    ):
        ca_folder().prepare()


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_is_enormous_from_the_first_byte_too_many_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    path = tmp_path / ("x.pdb.gz" if packed else "x.pdb")
    content = GOOD.encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    monkeypatch.setattr(traces, "MOST_BYTES", len(content))
    assert traces.content_of(path) == content
    monkeypatch.setattr(traces, "MOST_BYTES", len(content) - 1)
    with pytest.raises(UnusableFileError, match="larger than"):
        traces.content_of(path)


def test_what_cannot_be_read_is_said_to_be_that_and_not_broken(tmp_path: Path) -> None:
    (tmp_path / "x.pdb").mkdir()
    with pytest.raises(UnusableFileError, match=r"cannot be read \(Is a directory\)"):
        traces.content_of(tmp_path / "x.pdb")
    with pytest.raises(UnusableFileError, match=r"cannot be read \(No such file"):
        traces.content_of(tmp_path / "y.pdb")


def test_of_several_models_the_first_counts(tmp_path: Path) -> None:
    first, second = (pdb_atoms(sequence(50, 1), trace(50, seed)) for seed in (1, 2))
    text = f"MODEL        1\n{first}TER\nENDMDL\nMODEL        2\n{second}TER\nENDMDL\nEND\n"
    (chain,) = traces.chains_of(text.encode(), "two.pdb", "two")
    assert np.allclose(chain.ca, trace(50, 1), atol=1e-3)


def test_a_gap_ends_a_stretch_and_both_sides_count(tmp_path: Path) -> None:
    letters, ca = sequence(100, 3), trace(100, 3)
    text = pdb_atoms(letters[:45], ca[:45]) + pdb_atoms(letters[55:], ca[55:] + 30.0, first=56)
    chains = traces.chains_of(text.encode(), "gap.pdb", "gap")
    assert [(chain.start, chain.sequence) for chain in chains] == [
        (0, letters[:45]),
        (45, letters[55:]),
    ]


def test_ligands_water_and_other_places_of_an_atom_are_no_residues() -> None:
    letters, ca = sequence(50, 4), trace(50, 4)
    lines = pdb_atoms(letters, ca).splitlines(keepends=True)
    other = lines[10][:16] + "B" + lines[10][17:30] + f"{0:8.3f}" * 3 + lines[10][54:]
    lines[10] = lines[10][:16] + "A" + lines[10][17:]
    calcium = "HETATM   99 CA    CA A 301       0.000   0.000   0.000  1.00  0.00          CA  \n"
    water = "HETATM  100  O   HOH A 302       5.000   0.000   0.000  1.00  0.00           O  \n"
    text = "".join([*lines[:11], other, *lines[11:], "TER\n", calcium, water])
    (chain,) = traces.chains_of(text.encode(), "full.pdb", "full")
    assert chain.sequence == letters
    assert np.allclose(chain.ca, ca, atol=1e-3)


def test_modified_residues_keep_their_parents_letter() -> None:
    letters = "M" * 50
    text = (
        pdb_atoms(letters, trace(50, 5)).replace("ATOM  ", "HETATM").replace("MET", "MSE") + "TER\n"
    )
    (chain,) = traces.chains_of(text.encode(), "mse.pdb", "mse")
    assert chain.sequence == letters


def test_residues_that_are_no_standard_amino_acid_are_left_out_and_named(folder: Path) -> None:
    written = fill(folder)
    letters, ca = "G" * 60 + "A" + "G" * 60, trace(121, 200)
    (folder / "dal.pdb").write_text(pdb(letters, ca).replace("ALA", "DAL"))
    with pytest.warns(EquivbenchWarning, match=r"1 residues .* end a chain: DAL 1"):
        path = ca_folder().prepare()
    table, card = LAYOUT.read(path)
    # The two halves are the same sequence, so that one of them is kept.
    assert len(table["name"]) == len(written) + 1
    assert card["recipe"]["residues left out"] == {"DAL": 1}


def test_all_names_of_structure_files_are_read_or_named_and_links_are_followed(
    folder: Path, tmp_path: Path
) -> None:
    written = fill(folder)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "one.pdb").write_text(pdb(sequence(60, 101), trace(60, 101)))
    (elsewhere / "two.cif").write_text(mmcif(sequence(60, 102), trace(60, 102)))
    (folder / "linked").symlink_to(elsewhere)
    (folder / "again").symlink_to(elsewhere)
    (folder / "round").symlink_to(folder)
    (folder / "file.ent").symlink_to(elsewhere / "one.pdb")
    (folder / "assembly.pdb1").write_text(pdb(sequence(60, 103), trace(60, 103)))
    assembly = pdb(sequence(60, 104), trace(60, 104)).encode()
    (folder / "ASSEMBLY.PDB2.GZ").write_bytes(gzip.compress(assembly))
    (folder / "lost.pdb").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "pipe.pdb")
    not_read = ("a.bcif", "a.pdb.bz2", "a.cif.xz", "a.mmtf.gz", "a.tar.gz", "a.zip", "a.pdbqt")
    for name in not_read:
        (folder / name).write_bytes(b"x")
    # Nothing of structures, so nothing is said of them.
    for name in ("notes.txt", "a.fasta", "pdb", "x.pdb.txt", "x.cif~"):
        (folder / name).write_bytes(b"x")
    with pytest.warns(EquivbenchWarning) as caught:
        path = ca_folder().prepare()
    (warning,) = caught
    message = str(warning.message)
    assert f"9 of {len(written) + 5 + 9} files" in message
    table, card = LAYOUT.read(path)
    assert len(table["name"]) == len(written) + 4
    assert card["recipe"]["files left out"] == {
        "not of a kind that is read": len(not_read),
        "a link to nothing": 1,
        "no regular file": 1,
    }


def test_a_folder_of_other_kinds_alone_says_so(folder: Path) -> None:
    folder.mkdir()
    (folder / "x.bcif.gz").write_bytes(b"x")
    with pytest.raises(FailedError, match=r"has no .pdb .*; x\.bcif\.gz is not of a kind"):
        ca_folder().prepare()


def test_the_card_has_a_checksum_of_what_was_read(folder: Path) -> None:
    fill(folder)
    before = read_card(ca_folder().prepare())["recipe"]["source"]
    (folder / "entry0.pdb").write_text(GOOD)
    after = read_card(ca_folder().prepare())["recipe"]["source"]
    assert "SHA-256" in before
    assert before != after


def test_a_changed_folder_is_gathered_anew(folder: Path) -> None:
    fill(folder)
    before = ca_folder().prepare()
    (folder / "sub").mkdir()
    (folder / "sub" / "new.pdb").write_text(GOOD)
    after = ca_folder().prepare()
    assert after != before
    assert read_card(after)["residues"] == read_card(before)["residues"] + 60


def test_a_folder_gives_the_same_bytes_again(folder: Path, cache: Path) -> None:
    fill(folder)
    path = ca_folder().prepare()
    content = path.read_bytes()
    path.with_suffix(".json").unlink()  # as if the last build had been cut off
    assert ca_folder().prepare().read_bytes() == content


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "is not a folder"),
        ({}, "has no .pdb"),
        ({"notes.txt": b"x"}, "has no .pdb"),
        ({"rna.pdb": rna().encode()}, "no protein"),
    ],
)
def test_a_folder_with_nothing_usable_is_a_failure_that_names_it(
    folder: Path, cache: Path, content: dict[str, bytes] | None, complaint: str
) -> None:
    if content is not None:
        folder.mkdir()
        for name, text in content.items():
            (folder / name).write_bytes(text)
    with pytest.raises(FailedError, match=complaint) as raised:
        ca_folder().prepare()
    assert str(folder) in str(raised.value)
    assert files_in(cache) == []


def test_too_few_clusters_for_three_splits_is_a_failure(folder: Path, cache: Path) -> None:
    folder.mkdir()
    (folder / "one.pdb").write_text(GOOD)
    with pytest.raises(FailedError, match="1 usable backbones and none for"):
        ca_folder().prepare()
    assert files_in(cache) == []


def test_an_interrupted_build_leaves_nothing(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder)
    calls = iter(range(10))

    def stop(content: bytes, name: str, entry: str) -> list[traces.Chain]:
        if next(calls) == 5:
            raise KeyboardInterrupt
        return traces.chains_of(content, name, entry)

    monkeypatch.setattr("equivbench.tasks.flow.sources.chains_of", stop)
    with pytest.raises(KeyboardInterrupt):
        ca_folder().prepare()
    assert files_in(cache) == []


def test_without_gemmi_the_message_says_how_to_install_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, 1)
    monkeypatch.setitem(sys.modules, "gemmi", None)
    with pytest.raises(FailedError, match=r"pip install 'equivbench\[structures\]'"):
        ca_folder().prepare()
