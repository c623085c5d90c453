"""Structure files as other programs write them: each differs from a sound one in one respect, and
so does the nearest one of which a stated reason is not true."""

import codecs
import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structure_files import mmcif, pdb, pdb_atoms, rna, sequence, trace

from equivbench.tasks.flow import chains as traces
from equivbench.tasks.flow.chains import STEP, Chain, chains_of
from equivbench.tasks.flow.residues import UnusableFileError

INPUTS = Path(__file__).parents[2] / "data" / "structures"
RIGHT = {
    "two_real_chains_one_id.pdb": [79, 150],
    "two_chains_one_id_renumbered.pdb": [45, 100],
    "left_names_no_element.pdb": [45],
    "no_alt_column.cif": [45],
    "no_type_symbol_column.cif": [45],
    "unknown_type_symbol.cif": [45],
    "comp_list_first.cif": [45],
    "wrapped_chain.pdb": [90],
    "bom.pdb": [45],
    "bom.cif": [45],
}
"""Residues of each chain."""


def read(content: bytes | str, name: str = "x.pdb") -> list[Chain]:
    text = content.encode() if isinstance(content, str) else content
    return chains_of(traces.unpacked(text, name), name, "X")


@pytest.mark.parametrize("name", RIGHT)
def test_files_of_other_programs_give_all_their_chains(name: str) -> None:
    found = read((INPUTS / name).read_bytes(), name)
    assert [len(chain.sequence) for chain in found] == RIGHT[name]
    assert len({chain.name for chain in found}) == len(found)
    for chain in found:
        steps = np.linalg.norm(np.diff(chain.ca, axis=0), axis=1)
        assert ((steps > STEP[0]) & (steps < STEP[1])).all()


def test_every_input_has_its_right_answer() -> None:
    assert {path.name for path in INPUTS.iterdir()} == RIGHT.keys()


@pytest.mark.parametrize("filling", [b"\n", b"\r\n", b"# blank\n", b"X\n"])
def test_lines_without_end_take_little_more_memory_than_the_file(filling: bytes) -> None:
    content = filling * 200_000
    tracemalloc.start()
    try:
        with pytest.raises(UnusableFileError, match="no atoms"):
            chains_of(content, "x.pdb", "X")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 2 * len(content) + 2**20


# Chains: by TER, by numbering, by distance.


def joined(between: str, first: int) -> str:
    """Two chains of one id whose ends are as near as neighbours, ``between`` them a line, the
    second numbered from ``first``."""
    letters, ca = sequence(100, 3), trace(100, 3)
    return (
        pdb_atoms(letters[:50], ca[:50]) + between + pdb_atoms(letters[50:], ca[50:], first=first)
    )


@pytest.mark.parametrize(
    ("between", "first", "lengths"),
    [
        ("", 51, [100]),
        ("TER\n", 51, [50, 50]),
        ("TER      51      ALA A  50\r\n", 1, [50, 50]),
        ("", 1, [50, 50]),
        ("", 10, [50, 50]),
        # Residues left out of the numbering alone, as in antibodies: the chain goes on.
        ("", 60, [100]),
        ("REMARK TER\n", 51, [100]),
    ],
)
def test_a_chain_ends_at_ter_and_where_numbers_go_down(
    between: str, first: int, lengths: list[int]
) -> None:
    found = read(joined(between, first))
    assert [len(chain.sequence) for chain in found] == lengths
    assert [chain.start for chain in found] == [0] * len(lengths)
    assert [chain.name for chain in found] == ["X_A", "X_A.2"][: len(lengths)]


def test_the_same_number_with_an_insertion_code_is_the_next_residue() -> None:
    letters, ca = sequence(50, 3), trace(50, 3)
    lines = pdb_atoms(letters, ca).splitlines(keepends=True)
    for index, code in ((20, " "), (21, "A"), (22, "B")):
        lines[index] = lines[index][:22] + f"{21:4d}{code}" + lines[index][27:]
    (chain,) = read("".join(lines))
    assert chain.sequence == letters


@pytest.mark.parametrize("in_blocks", [False, True])
def test_alternate_places_are_one_residue_wherever_they_are_listed(in_blocks: bool) -> None:
    letters, ca = sequence(50, 4), trace(50, 4)
    lines = pdb_atoms(letters, ca).splitlines(keepends=True)
    alternates = range(10, 14)
    first = {i: lines[i][:16] + "A" + lines[i][17:] for i in alternates}
    second = {
        i: lines[i][:16] + "B" + lines[i][17:30] + f"{0:8.3f}" * 3 + lines[i][54:]
        for i in alternates
    }
    middle = (
        [*first.values(), *second.values()]
        if in_blocks
        else [line for i in alternates for line in (first[i], second[i])]
    )
    (chain,) = read("".join([*lines[:10], *middle, *lines[14:]]))
    assert chain.sequence == letters
    assert np.allclose(chain.ca, ca, atol=1e-3)


def test_more_than_9999_residues_are_numbered_in_hybrid_36_or_with_a_fifth_digit() -> None:
    letters, ca = sequence(60, 5), trace(60, 5)
    lines = pdb_atoms(letters, ca).splitlines(keepends=True)
    numbers = range(9970, 10030)
    hybrid = [
        f"{n:4d} " if n < 10_000 else f"A00{'0123456789ABCDEFGHIJKLMNOPQRST'[n - 10_000]} "
        for n in numbers
    ]
    wide = [f"{n:4d} " if n < 10_000 else f"{n}" for n in numbers]
    for texts in (hybrid, wide):
        (chain,) = read(
            "".join(line[:22] + text + line[27:] for line, text in zip(lines, texts, strict=True))
        )
        assert chain.sequence == letters


@pytest.mark.parametrize("end", ["ENDMDL\nMODEL        2\n", "END\n"])
def test_what_follows_the_first_model_is_another_frame(end: str) -> None:
    letters = sequence(50, 1)
    text = pdb_atoms(letters, trace(50, 1)) + end + pdb_atoms(letters, trace(50, 2))
    (chain,) = read(text)
    assert np.allclose(chain.ca, trace(50, 1), atol=1e-3)


# Residues: names, elements, what is standard.


@pytest.mark.parametrize("element", [" C", "  ", "CA", "Ca", "??"])
def test_a_ca_atom_of_an_amino_acid_is_a_carbon_whatever_its_element_says(element: str) -> None:
    text = pdb(sequence(50, 6), trace(50, 6)).replace(
        "           C  \n", f"          {element}  \n"
    )
    assert len(read(text)[0].sequence) == 50
    left = text.replace("  CA  ", " CA   ")
    assert len(read(left)[0].sequence) == 50


@pytest.mark.parametrize(
    ("residue", "letter"), [("HSD", "H"), ("CYX", "C"), ("NMET", "M"), ("LYSH", "K"), ("MSE", "M")]
)
def test_names_of_force_fields_are_those_of_amino_acids(residue: str, letter: str) -> None:
    blank = pdb_atoms("A" * 50, trace(50, 7), chain=" ")
    (chain,) = read(blank.replace("ALA ", f"{residue:4s}"))
    assert chain.sequence == letter * 50
    assert chain.name == "X_"


def test_a_chain_of_two_letters_is_no_residue_of_four() -> None:
    lines = pdb_atoms("MHHKA" * 10, trace(50, 8)).splitlines()
    (chain,) = read("\n".join(f"{line[:20]}HA{line[22:]}" for line in lines))
    assert (chain.name, chain.sequence) == ("X_HA", "MHHKA" * 10)


@pytest.mark.parametrize("name", ["DAL", "SEP", "UNK"])
def test_residues_that_are_no_standard_amino_acid_end_a_chain_and_are_named(name: str) -> None:
    letters, ca = "G" * 50 + "A" + "G" * 60, trace(111, 9)
    found = chains_of(pdb_atoms(letters, ca).replace("ALA", name).encode(), "x.pdb", "X")
    assert [(chain.start, len(chain.sequence)) for chain in found] == [(0, 50), (51, 60)]
    assert found.left_out == {name: 1}
    everywhere = pdb_atoms("A" * 50, trace(50, 9)).replace("ALA", name)
    with pytest.raises(UnusableFileError, match=rf"standard L-amino acids \(others: {name} 50\)"):
        read(everywhere)


def test_ions_and_ligands_with_an_atom_called_ca_are_not_named() -> None:
    text = pdb(sequence(50, 4), trace(50, 4)).replace("END\n", "")
    for index, residue in enumerate(("CA ", "LIG")):
        text += f"HETATM   99 CA   {residue} A 30{index}    {90 + 9 * index:8.3f}   0.000   0.000\n"
    found = chains_of(text.encode(), "x.pdb", "X")
    assert [len(chain.sequence) for chain in found] == [50]
    assert not found.left_out


# mmCIF: blocks and columns.

OPTIONAL = [
    *("group_PDB", "id", "type_symbol", "label_alt_id", "label_entity_id", "label_seq_id"),
    *("auth_seq_id", "auth_asym_id", "label_asym_id", "pdbx_PDB_model_num"),
]


@given(left_out=st.sets(st.sampled_from(OPTIONAL)))
def test_an_mmcif_needs_no_column_but_names_and_places(left_out: set[str]) -> None:
    letters, ca = sequence(45, 11), trace(45, 11)
    head, _, rows = mmcif(letters, ca).partition("loop_\n")
    tags = [line for line in rows.splitlines() if line.startswith("_atom_site.")]
    kept = [i for i, tag in enumerate(tags) if tag.partition(".")[2] not in left_out]
    body = [line.split() for line in rows.splitlines() if line.startswith("ATOM")]
    text = "\n".join(
        [
            head + "loop_",
            *(tags[i] for i in kept),
            *(" ".join(row[i] for i in kept) for row in body),
        ]
    )
    (chain,) = read(text, "x.cif")
    assert chain.sequence == letters


def test_every_block_with_atoms_is_read() -> None:
    one, two = (
        mmcif(sequence(n, n), trace(n, n)).replace("data_TEST", f"data_{n}") for n in (41, 42)
    )
    found = read(one + two, "x.cif")
    assert [len(chain.sequence) for chain in found] == [41, 42]
    assert [chain.name for chain in found] == ["X_A", "X_A.2"]


def test_of_several_models_of_an_mmcif_the_first_counts() -> None:
    text = mmcif(sequence(45, 1), trace(45, 1))
    (chain,) = read(
        text.replace("#\n", text[text.index("ATOM") :].replace(" A 1\n", " A 2\n")), "x.cif"
    )
    assert len(chain.sequence) == 45


# The periodic box.


@pytest.mark.parametrize("angles", [(90, 90, 90), (60, 60, 90), (70.5, 109.5, 70.5)])
@pytest.mark.parametrize("suffix", [".pdb", ".cif"])
def test_a_chain_that_leaves_its_box_comes_back_whole(
    angles: tuple[float, float, float], suffix: str
) -> None:
    letters, ca = sequence(90, 12), trace(90, 12)
    # The vectors of the cell by their definition: a along x, b in the plane of x and y.
    alpha, beta, gamma = np.cos(np.radians(angles))
    sine = np.sqrt(1 - gamma**2)
    y = (alpha - beta * gamma) / sine
    vectors = 20.0 * np.array([[1, 0, 0], [gamma, sine, 0], [beta, y, np.sqrt(1 - beta**2 - y**2)]])
    inside = (ca @ np.linalg.inv(vectors)) % 1 @ vectors
    broken = np.linalg.norm(np.diff(inside, axis=0), axis=1) > STEP[1]
    assert broken.sum() > 3
    if suffix == ".pdb":
        cell = "CRYST1" + 3 * f"{20:9.3f}" + "".join(f"{angle:7.2f}" for angle in angles) + " P 1\n"
        text = cell + pdb(letters, inside)
    else:
        tags = [
            *(f"length_{e} 20" for e in "abc"),
            *(f"angle_{n} {a}" for n, a in zip(("alpha", "beta", "gamma"), angles, strict=True)),
        ]
        text = mmcif(letters, inside) + "".join(f"_cell.{tag}\n" for tag in tags)
    (chain,) = read(text, f"x{suffix}")
    assert chain.sequence == letters
    # Half of .001 A for each of the places that a crossing adds up.
    assert np.abs((chain.ca - chain.ca[0]) - (ca - ca[0])).max() < 0.05


@pytest.mark.parametrize(
    "cell", ["", "CRYST1    1.000    1.000    1.000  90.00  90.00  90.00\n", "CRYST1\n"]
)
def test_without_a_box_a_jump_is_a_gap(cell: str) -> None:
    letters, ca = sequence(90, 12), trace(90, 12)
    ca[45:] += 20.0
    assert [len(chain.sequence) for chain in read(cell + pdb(letters, ca))] == [45, 45]


def test_a_missing_residue_is_a_gap_in_any_box() -> None:
    letters, ca = sequence(90, 12), trace(90, 12)
    text = pdb_atoms(letters[:45], ca[:45]) + pdb_atoms(
        letters[45:], ca[45:] + np.array([30, 0, 0]), first=47
    )
    cell = "CRYST1" + 3 * f"{30:9.3f}" + 3 * f"{90:7.2f}" + " P 1\n"
    assert [len(chain.sequence) for chain in read(cell + text)] == [45, 45]


# Texts: marks and line ends.


@pytest.mark.parametrize("name", ["x.pdb", "x.ent", "x.cif", "x.pdb.gz", "x.cif.gz"])
@pytest.mark.parametrize("head", ["", "\n# by a program\n  \n"])
def test_an_mmcif_and_a_packed_file_are_known_by_their_first_bytes(name: str, head: str) -> None:
    letters, ca = sequence(45, 13), trace(45, 13)
    text = (head + mmcif(letters, ca)).encode()
    assert read(gzip.compress(text), name)[0].sequence == letters
    if not name.endswith(".gz"):
        assert read(text, name)[0].sequence == letters


def test_bytes_that_are_no_utf_8_after_a_mark_say_nothing_of_the_chain() -> None:
    text = b"REMARK \xe9\n" + pdb(sequence(45, 13), trace(45, 13)).encode()
    assert len(read(codecs.BOM_UTF8 + text)[0].sequence) == 45


@pytest.mark.parametrize("far", ["     inf", "   1e300", "  -9e9  "])
def test_a_place_beyond_the_world_is_none(far: str) -> None:
    text = pdb_atoms(sequence(60, 1), trace(60, 1))
    line = text.splitlines(keepends=True)[5]
    (chain,) = read(text.replace(line, line[:30] + 3 * far + line[54:]))
    assert (chain.start, len(chain.sequence)) == (6, 54)


@pytest.mark.parametrize("name", ["x.pdb", "x.cif"])
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_byte_order_marks_and_line_ends_change_nothing(
    name: str, mark: bytes, encoding: str, end: str
) -> None:
    letters, ca = sequence(45, 13), trace(45, 13)
    text = (pdb if name == "x.pdb" else mmcif)(letters, ca).replace("\n", end)
    (chain,) = read(mark + text.encode(encoding), name)
    assert chain.sequence == letters


# Reasons: each is true of its file, and not said of the nearest one of which it is not.

SIDE_CHAINS = pdb(sequence(50, 1), trace(50, 1)).replace("  CA  ", "  CB  ")
REASONS = {
    "no atoms": ("REMARK nothing here\nEND\n", rna(1), "no protein"),
    "no protein": (rna(), SIDE_CHAINS, "a protein without places of CA atoms"),
    "a protein without places of CA atoms": (
        SIDE_CHAINS,
        pdb(sequence(39, 1), trace(39, 1)),
        "no unbroken chain of 40 residues",
    ),
    "no unbroken chain of 40 residues": (
        pdb(sequence(39, 1), trace(39, 1)),
        pdb(sequence(40, 1), trace(40, 1)),
        None,
    ),
    "no unbroken chain of 40 standard L-amino acids": (
        pdb("A" * 50, trace(50, 1)).replace("ALA", "UNK"),
        pdb("A" * 50, trace(50, 1)).replace("ALA", "UNK", 10),
        None,
    ),
    r"not valid \(line 50 is cut short\)": (
        pdb_atoms("A" * 50, trace(50, 1))[:-30],
        # An element and an occupancy less: all that is needed is there.
        pdb_atoms("A" * 50, trace(50, 1))[:-27],
        None,
    ),
    r"not valid \(no coordinates in columns 31-54 of line 1\)": (
        pdb("A" * 50, trace(50, 1)).replace("0.000   0.000", "0.000   O.000", 1),
        pdb("A" * 50, trace(50, 1)).replace("0.000   0.000", "0.000 *******", 1),
        None,
    ),
    "empty": ("\n", "END\n", "no atoms"),
}


@pytest.mark.parametrize("reason", REASONS)
def test_a_reason_is_given_where_it_is_true_and_not_for_the_nearest_file(reason: str) -> None:
    true_of, nearest, other = REASONS[reason]
    with pytest.raises(UnusableFileError, match=f"^{reason}"):
        read(true_of)
    if other is None:
        assert read(nearest)
    else:
        with pytest.raises(UnusableFileError, match=f"^{other}"):
            read(nearest)


CIF_REASONS = {
    "no atoms": "data_x\n_entry.id x\n",
    "describes molecules": (
        "data_ALA\nloop_\n_chem_comp_atom.comp_id\n_chem_comp_atom.atom_id\nALA CA\n"
    ),
    r"not valid \(atoms without Cartesian": (
        "data_x\nloop_\n_atom_site_label\n_atom_site_fract_x\nC1 0.5\n"
    ),
    r"not valid \(atoms without names": (
        "data_x\nloop_\n_atom_site.Cartn_x\n_atom_site.Cartn_y\n_atom_site.Cartn_z\n1 2 3\n"
    ),
    "no protein": (
        "data_x\nloop_\n_atom_site.label_atom_id\n_atom_site.label_comp_id\n"
        "_atom_site.Cartn_x\n_atom_site.Cartn_y\n_atom_site.Cartn_z\nCA CA 1 2 3\n"
    ),
}


@pytest.mark.parametrize("reason", CIF_REASONS)
def test_an_mmcif_without_a_chain_says_what_it_is(reason: str) -> None:
    with pytest.raises(UnusableFileError, match=f"^{reason}"):
        read(CIF_REASONS[reason], "x.cif")


# Damage: whatever a file holds, it gives chains or a reason.

SOUND = {
    ".pdb": pdb(sequence(45, 1), trace(45, 1)).encode(),
    ".cif": mmcif(sequence(45, 1), trace(45, 1)).encode(),
}


@given(
    suffix=st.sampled_from([*SOUND]),
    places=st.lists(st.integers(0, 3500), max_size=8),
    pieces=st.lists(st.binary(min_size=1, max_size=12), max_size=8),
    cut=st.integers(0, 4000),
)
def test_a_damaged_file_gives_chains_or_a_reason(
    suffix: str, places: list[int], pieces: list[bytes], cut: int
) -> None:
    content = bytearray(SOUND[suffix])
    for place, piece in zip(places, pieces, strict=False):
        content[place : place + len(piece)] = piece
    try:
        found = read(bytes(content[:cut]) or b" ", f"x{suffix}")
    except UnusableFileError:
        return
    assert found
    assert all(np.isfinite(chain.ca).all() for chain in found)
    assert all(len(chain.sequence) == len(chain.ca) >= 40 for chain in found)
