"""Holds the reader of structure files against an independent count by lines, over real files.

``python tools/check_structures.py FOLDER`` reads every PDB and mmCIF file in the folder and in the
wheels and source archives that lie in it. Good ones to have are those of four packages:
``pip download --no-deps --no-binary :all: MDAnalysisTests biopython`` and ``pip download --no-deps
posebusters tmtools``. It prints the files that disagree and exits 1 if any do.
"""

from __future__ import annotations

import gzip
import math
import shlex
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import gemmi

from equivbench.tasks.flow.chains import chains_of, suffix_of, unpacked
from equivbench.tasks.flow.residues import LETTERS, UnusableFileError

Atom = tuple[tuple[str, ...], float, str, tuple[float, float, float]]
"""What separates chains, residue number with a part for its insertion code, residue, place."""


def files_in(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each structure file of the folder and of the archives in it."""
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                yield from ((n, wheel.read(n)) for n in wheel.namelist() if suffix_of(n))
        elif path.name.endswith(".tar.gz"):
            with tarfile.open(path) as archive:
                for member in archive:
                    file = archive.extractfile(member) if suffix_of(member.name) else None
                    if file is not None:
                        yield member.name, file.read()
        elif suffix_of(path.name):
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def counted(name: str, content: bytes) -> list[int]:
    """Residues of each chain by lines alone: CA atoms of standard amino acids in the first model;
    a chain ends at TER, with its name, where numbers go down and by distance."""
    if name.lower().endswith(".gz"):
        content = gzip.decompress(content)
    text = content.decode("utf-8-sig", errors="replace")
    is_cif = (suffix_of(name) or "").endswith("cif")
    cell, atoms = _cif(text) if is_cif else _pdb(text)
    lengths: list[int] = []
    before: Atom | None = None
    for atom in atoms:
        if atom[2] not in LETTERS:
            before = None
            continue
        joined = before is not None and before[0] == atom[0] and before[1] < atom[1]
        if joined and before is not None:
            joined = _near(before, atom, cell)
        if joined:
            lengths[-1] += 1
        else:
            lengths.append(1)
        before = atom
    return [length for length in lengths if length >= 40]


def _near(one: Atom, other: Atom, cell: gemmi.UnitCell | None) -> bool:
    distance = math.dist(one[3], other[3])
    if not 2.7 < distance < 4.3 and cell is not None and int(other[1]) - int(one[1]) == 1:
        place, image = (gemmi.Position(*atom[3]) for atom in (one, other))
        distance = cell.find_nearest_pbc_image(place, image, 0).dist()
    return 2.7 < distance < 4.3


def _pdb(text: str) -> tuple[gemmi.UnitCell | None, list[Atom]]:
    cell: gemmi.UnitCell | None = None
    atoms: list[Atom] = []
    part, any_atom = 0, False
    seen: set[tuple[str, ...]] = set()
    for line in text.splitlines():
        if line.startswith("CRYST1"):
            numbers = [float(word) for word in line[6:54].split()]
            cell = gemmi.UnitCell(*numbers) if len(numbers) == 6 and numbers[0] > 1 else None
        elif line.startswith("TER"):
            part, seen = part + 1, set()
        elif line.startswith(("ENDMDL", "END ")) or line.strip() == "END":
            if any_atom:
                break
        elif line.startswith(("ATOM", "HETATM")):
            any_atom = True
            if line[12:16].strip() != "CA":
                continue
            four = line[17:21].strip()
            name = four if four in LETTERS else line[17:20].strip()
            x, y, z = (float(line[start : start + 8]) for start in (30, 38, 46))
            if line[16] != " ":
                # Of alternate places the first counts.
                residue = (line[21], line[22:27])
                if residue in seen:
                    continue
                seen.add(residue)
            number = int(line[22:26]) + (ord(line[26]) - 32) / 1000
            atoms.append(((str(part), line[21]), number, name, (x, y, z)))
    return cell, _without_ions(atoms)


def _cif(text: str) -> tuple[gemmi.UnitCell | None, list[Atom]]:
    tags: list[str] = []
    atoms: list[Atom] = []
    seen: set[tuple[str, ...]] = set()
    models: set[str] = set()
    cell: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("_cell."):
            words = line.split()
            if words[0][6:12] in ("length", "angle_") and words[1] not in "?.":
                cell[words[0][6:]] = float(words[1])
        if line.startswith("_atom_site."):
            tags.append(line.split()[0].removeprefix("_atom_site."))
        elif tags and line.startswith(("ATOM", "HETATM")):
            words = shlex.split(line) if "'" in line or '"' in line else line.split()
            row = dict(zip(tags, words, strict=False))
            models.add(row.get("pdbx_PDB_model_num", "1"))
            if row["label_atom_id"] != "CA" or len(models) > 1:
                continue
            label = row.get("label_seq_id", ".")
            number = label if label not in ("?", ".") else row["auth_seq_id"]
            chain = (row["label_asym_id"], row.get("auth_asym_id", ""))
            if row.get("label_alt_id", ".") not in ("?", "."):
                if (*chain, number) in seen:
                    continue
                seen.add((*chain, number))
            x, y, z = (float(row[f"Cartn_{axis}"]) for axis in "xyz")
            atoms.append((chain, float(number), row["label_comp_id"], (x, y, z)))
    edges = [cell.get(f"length_{edge}", 0.0) for edge in "abc"]
    angles = [cell.get(f"angle_{name}", 90.0) for name in ("alpha", "beta", "gamma")]
    box = gemmi.UnitCell(*edges, *angles) if min(edges) > 1 else None
    return box, _without_ions(atoms)


def _without_ions(atoms: Iterable[Atom]) -> list[Atom]:
    return [atom for atom in atoms if atom[2] != "CA"]


def main(folder: Path) -> int:
    """Print what disagrees and how many files agree; the exit code."""
    files = agreed = 0
    for name, content in files_in(folder):
        files += 1
        try:
            found = chains_of(unpacked(content, name), name, "X")
            ours, why = [len(chain.sequence) for chain in found], f"left out {dict(found.left_out)}"
        except UnusableFileError as reason:
            ours, why = [], str(reason)
        try:
            lines = counted(name, content)
        except (ValueError, KeyError, IndexError, OSError, EOFError) as error:
            lines = []
            why += f"; by lines: {type(error).__name__}: {error}"
        if ours == lines:
            agreed += 1
        else:
            print(f"{name}: {ours}, by lines {lines} ({why})")
    print(f"{files} files, {agreed} agree")
    return int(agreed < files or not files)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
