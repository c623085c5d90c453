"""Drug-like molecules and their conformers by rdkit (extra ``generate``; imports no torch): what
two generators share."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from equivbench.tasks.storage import digest

SMILES_FILES = ("NCI/first_5K.smi", "Pains/test_data/wehi_mols.csv")
"""Inside rdkit's data folder. The wheel's ChEMBL files (CC-BY-SA) are left out."""
STRUCTURES_LICENCE = (
    "SMILES from files of the rdkit wheel (BSD-3-Clause): the NCI open database (public domain) "
    "and the WEHI set of the PAINS filters"
)

Made = TypeVar("Made")


def pool(seed: int, elements: Sequence[str], atoms: tuple[int, int]) -> list[str]:
    """Canonical SMILES of the molecules in rdkit's files that qualify (:func:`qualified`), each
    once, in an order drawn from ``seed``."""
    from rdkit import RDConfig, rdBase

    found: set[str] = set()
    with rdBase.BlockLogs():
        for name in SMILES_FILES:
            for line in (Path(RDConfig.RDDataDir) / name).read_text(encoding="utf-8").splitlines():
                text = line.split('"')[1] if line.startswith('"') else line.split()[0]
                if smiles := qualified(text, elements, atoms):
                    found.add(smiles)
    return sorted(found, key=lambda smiles: digest(f"order {seed} {smiles}"))


def further_pool(
    known: Sequence[str],
    texts: Sequence[str],
    number: int,
    seed: int,
    elements: Sequence[str],
    atoms: tuple[int, int],
) -> list[str]:
    """Canonical SMILES of ``number`` of the molecules ``texts`` (SMILES) that qualify, or of all if
    they are fewer, in an order drawn from ``seed``, each once and none that is one of ``known`` or
    a stereoisomer of one."""
    from rdkit import rdBase

    taken = {without_hand(smiles) for smiles in known}
    found: list[str] = []
    with rdBase.BlockLogs():
        for text in sorted({*texts}, key=lambda text: digest(f"order {seed} {text}")):
            if len(found) == number:
                break
            smiles = qualified(text, elements, atoms)
            if smiles is None or (flat := without_hand(smiles)) in taken:
                continue
            taken.add(flat)
            found.append(smiles)
    return found


def without_hand(smiles: str) -> str:
    """The canonical SMILES that all stereoisomers of a molecule share."""
    from rdkit import Chem

    flat: str = Chem.MolToSmiles(Chem.MolFromSmiles(smiles), isomericSmiles=False)
    return flat


def qualified(text: str, elements: Sequence[str], atoms: tuple[int, int]) -> str | None:
    """The canonical SMILES of a molecule, or None unless it is one neutral, closed-shell fragment
    of ``atoms`` (fewest and most, hydrogens included), of ``elements``, without isotope labels."""
    from rdkit import Chem

    molecule = Chem.MolFromSmiles(text)
    if molecule is None or len(Chem.GetMolFrags(molecule)) != 1:
        return None
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
        smiles: str = Chem.MolToSmiles(Chem.RemoveHs(molecule))
        return smiles
    return None


def minimised(smiles: str, draw: str) -> tuple[Any, Any] | None:
    """(rdkit molecule with one conformer, its MMFF94s force field) at an MMFF94s minimum reached
    from an ETKDGv3 embedding.

    The embedding's random numbers come from the digest of ``draw``. None where rdkit cannot embed
    or type the molecule, or the minimisation does not converge.
    """
    from rdkit import Chem, rdBase
    from rdkit.Chem import AllChem

    with rdBase.BlockLogs():
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


def in_processes(
    function: Callable[[tuple[str, int]], Made], pool: Sequence[str], seed: int, processes: int
) -> Iterator[Made]:
    """``function`` of (SMILES, seed) for each of the pool, in its order whatever the number of
    ``processes``, each with one thread."""
    # A fresh interpreter for each worker, so that libraries with OpenMP read the thread count set
    # in it.
    with multiprocessing.get_context("spawn").Pool(processes, _start_worker) as workers:
        yield from workers.imap(function, [(smiles, seed) for smiles in pool], chunksize=4)


def _start_worker() -> None:
    # Ctrl-C is the parent's to handle: it ends the pool.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")


def recipe(
    tools: Sequence[str], seed: int, elements: Sequence[str], atoms: tuple[int, int]
) -> dict[str, Any]:
    """How a card's recipe begins."""
    return {
        "tools": {name: version(name) for name in tools},
        "seed": seed,
        "smiles": [f"rdkit wheel, Data/{name}" for name in SMILES_FILES],
        "filter": f"one neutral closed-shell fragment, {atoms[0]}-{atoms[1]} atoms with H, of "
        f"{' '.join(elements)}, no isotopes",
    }


def command_line(description: str) -> argparse.ArgumentParser:
    """The options of both generators."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--samples", type=int, help="by default as many as are shipped")
    parser.add_argument("--seed", type=int, help="by default that of the shipped set")
    parser.add_argument(
        "--processes", type=int, default=2, help="the file is the same for any number"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="the .npz to write, cards beside it"
    )
    return parser
