"""Drug-like molecules and their conformers by rdkit (extra ``generate``; imports no torch): what
two data sets begin with."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from equivbench.tasks.ragged import digest

SMILES_FILES = ("NCI/first_5K.smi", "Pains/test_data/wehi_mols.csv")
"""Inside rdkit's data folder. The wheel's ChEMBL files (CC-BY-SA) are left out."""
STRUCTURES_LICENCE = (
    "SMILES from files of the rdkit wheel (BSD-3-Clause): the NCI open database (public domain) "
    "and the WEHI set "
    "of the PAINS filters"
)

Job = TypeVar("Job")
Made = TypeVar("Made")


def pool(seed: int, elements: Sequence[str], atoms: tuple[int, int]) -> list[str]:
    """Canonical SMILES of the molecules that qualify, each once, in an order drawn from ``seed``.

    One neutral, closed-shell fragment of ``atoms`` (fewest and most, hydrogens included), of
    ``elements``, no isotope labels.
    """
    from rdkit import Chem, RDConfig, rdBase

    found: set[str] = set()
    with rdBase.BlockLogs():
        for name in SMILES_FILES:
            for line in (Path(RDConfig.RDDataDir) / name).read_text().splitlines():
                text = line.split('"')[1] if line.startswith('"') else line.split()[0]
                molecule = Chem.MolFromSmiles(text)
                if molecule is None or len(Chem.GetMolFrags(molecule)) != 1:
                    continue
                molecule = Chem.AddHs(molecule)
                members = list(molecule.GetAtoms())
                if (
                    atoms[0] <= len(members) <= atoms[1]
                    and sum(atom.GetFormalCharge() for atom in members) == 0
                    and all(
                        atom.GetSymbol() in elements
                        and not atom.GetNumRadicalElectrons()
                        and not atom.GetIsotope()
                        for atom in members
                    )
                ):
                    found.add(Chem.MolToSmiles(Chem.RemoveHs(molecule)))
    return sorted(found, key=lambda smiles: digest(f"order {seed} {smiles}"))


def minimised(smiles: str, draw: str) -> tuple[Any, Any] | None:
    """(rdkit molecule with one conformer, its MMFF94s force field) at an MMFF94s minimum reached
    from an ETKDGv3 embedding.

    The embedding's random numbers come from the digest of ``draw``. None where rdkit cannot embed
    or type the molecule, or the minimisation does not converge.
    """
    from rdkit import Chem
    from rdkit.Chem import AllChem

    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    settings = AllChem.ETKDGv3()
    settings.randomSeed = digest(draw) % (2**31 - 1)
    if AllChem.EmbedMolecule(molecule, settings) != 0:
        return None
    properties = AllChem.MMFFGetMoleculeProperties(molecule, mmffVariant="MMFF94s")
    if properties is None:
        return None
    field = AllChem.MMFFGetMoleculeForceField(molecule, properties)
    if field is None or field.Minimize(maxIts=2000) != 0:
        return None
    return molecule, field


@contextmanager
def in_processes(
    function: Callable[[Job], Made], jobs: Iterable[Job], processes: int
) -> Iterator[Iterator[Made]]:
    """``function`` of each of ``jobs``, in their order whatever the number of ``processes``, each
    with one thread."""
    # A fresh interpreter for each worker, so that libraries with OpenMP read the thread count set
    # in it.
    with multiprocessing.get_context("spawn").Pool(processes, _start_worker) as workers:
        yield workers.imap(function, jobs, chunksize=4)


def _start_worker() -> None:
    # Ctrl-C is the parent's to handle: it ends the pool.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
