"""Structure files that these tests write: chains of CA atoms in the PDB and mmCIF formats."""

import gzip
from pathlib import Path

import numpy as np

THREE = {
    "A": "ALA", "C": "CYS", "D": "ASP", "E": "GLU", "F": "PHE", "G": "GLY", "H": "HIS", "I": "ILE", "K": "LYS", "L": "LEU",
    "M": "MET", "N": "ASN", "P": "PRO", "Q": "GLN", "R": "ARG", "S": "SER", "T": "THR", "V": "VAL", "W": "TRP", "Y": "TYR",
}  # fmt: skip


def sequence(residues: int, seed: int) -> str:
    """Letters drawn alike: two of these agree at 5% of their places."""
    return "".join(np.random.default_rng(seed).choice(list(THREE), residues))


def mutated(letters: str, share: float, seed: int) -> str:
    """``letters`` with exactly that share of its residues replaced by others."""
    generator = np.random.default_rng(seed)
    changed = list(letters)
    for index in generator.choice(len(letters), round(share * len(letters)), replace=False):
        changed[index] = generator.choice([letter for letter in THREE if letter != letters[index]])
    return "".join(changed)


def trace(residues: int, seed: int) -> np.ndarray:
    """[residues, 3] A: steps of 3.8 A that turn back to the origin, so that the chain is
    compact."""
    generator = np.random.default_rng(seed)
    ca = np.zeros((residues, 3))
    for index in range(1, residues):
        step = generator.standard_normal(3) - 0.1 * ca[index - 1]
        ca[index] = ca[index - 1] + 3.8 * step / np.linalg.norm(step)
    return ca


def pdb_atoms(letters: str, ca: np.ndarray, chain: str = "A", first: int = 1) -> str:
    """ATOM records of one chain; residue numbers from ``first``."""
    return "".join(
        f"ATOM  {i + 1:5d}  CA  {THREE[letter]} {chain}{i + first:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           C  \n"
        for i, (letter, (x, y, z)) in enumerate(zip(letters, ca, strict=True))
    )


def pdb(letters: str, ca: np.ndarray) -> str:
    """A file of one chain."""
    return pdb_atoms(letters, ca) + "TER\nEND\n"


def mmcif(letters: str, ca: np.ndarray) -> str:
    """A file of one chain, with the columns that every entry of the PDB has."""
    columns = (
        "group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id label_entity_id label_seq_id "
        "Cartn_x Cartn_y Cartn_z auth_seq_id auth_asym_id pdbx_PDB_model_num"
    )
    rows = "".join(
        f"ATOM {i + 1} C CA . {THREE[letter]} A 1 {i + 1} {x:.3f} {y:.3f} {z:.3f} {i + 1} A 1\n"
        for i, (letter, (x, y, z)) in enumerate(zip(letters, ca, strict=True))
    )
    return (
        "data_TEST\n_entry.id TEST\nloop_\n"
        + "".join(f"_atom_site.{name}\n" for name in columns.split())
        + rows
        + "#\n"
    )


def rna(residues: int = 50) -> str:
    """A nucleic acid alone."""
    return "".join(
        f"ATOM  {i + 1:5d}  P     G A{i + 1:4d}    {6.0 * i:8.3f}{0:8.3f}{0:8.3f}  1.00  0.00           P  \n"
        for i in range(residues)
    )


def fill(folder: Path, chains: int = 30) -> dict[str, tuple[str, np.ndarray]]:
    """A folder of sound files in all four kinds, chain by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for seed in range(chains):
        letters, ca = sequence(40 + seed, seed), trace(40 + seed, seed)
        kind = (".pdb", ".cif", ".ent.gz", ".cif.gz")[seed % 4]
        text = (pdb if kind in (".pdb", ".ent.gz") else mmcif)(letters, ca).encode()
        name = f"entry{seed}{kind}"
        (folder / name).write_bytes(gzip.compress(text) if kind.endswith(".gz") else text)
        written[name] = (letters, ca)
    return written
