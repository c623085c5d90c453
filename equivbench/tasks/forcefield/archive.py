"""The flat file of a force-field data set: concatenated arrays in one .npz with its cards. Imports no torch."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivbench.errors import FailedError

SPLITS = ("train", "validation", "test")
"""In the order of the file's ``split`` codes."""
SPLIT_RULE = (
    "by molecule: u = first 8 bytes (big-endian) of SHA-256('split ' + name) / 2^64, where name is the canonical SMILES "
    "or the name that the source gives; test where u < 0.2, validation where 0.2 <= u < 0.3, else train"
)
VERSION = "1"
UNITS = {"pos": "A", "forces": "eV/A", "energy": "eV (total)", "z": "atomic number"}
LICENCES = {
    "structures": "SMILES from files of the rdkit wheel (BSD-3-Clause): NCI open database (public domain) and the WEHI set of the PAINS filters",
    "labels": "made by equivbench with rdkit (BSD-3-Clause) and tblite (LGPL-3.0-or-later, not shipped); MIT, as the package",
}


@dataclass(frozen=True)
class Archive:
    """Conformations with concatenated atoms; the unit of independence is the molecule.

    z [atoms] uint8; pos [atoms, 3] float32 A; forces [atoms, 3] float32 eV/A; energy [samples] float64 eV;
    n_atoms [samples] int32; molecule [samples] int32, into names [molecules] (bytes); split [samples] uint8, into
    ``SPLITS``.
    """

    z: NDArray[np.uint8]
    pos: NDArray[np.float32]
    forces: NDArray[np.float32]
    energy: NDArray[np.float64]
    n_atoms: NDArray[np.int32]
    molecule: NDArray[np.int32]
    split: NDArray[np.uint8]
    names: NDArray[np.bytes_]

    @classmethod
    def concatenate(
        cls,
        *,
        z: Sequence[NDArray[Any]],
        pos: Sequence[NDArray[Any]],
        forces: Sequence[NDArray[Any]],
        energy: Sequence[float],
        molecule: Sequence[int],
        names: Sequence[str],
        split: Sequence[int] | None = None,
    ) -> Archive:
        """From one z [atoms], pos and forces [atoms, 3], energy and molecule index per sample; split by name if not given."""
        if not z:
            raise FailedError("the source holds no usable conformation, so there is no data set to make; check its files")
        owner = np.asarray(molecule, dtype=np.int32)
        code = (
            np.array([split_code(name) for name in names], dtype=np.uint8)[owner]
            if split is None
            else np.asarray(split, dtype=np.uint8)
        )
        return cls(
            z=np.concatenate(z).astype(np.uint8),
            pos=np.concatenate(pos).astype(np.float32),
            forces=np.concatenate(forces).astype(np.float32),
            energy=np.asarray(energy, dtype=np.float64),
            n_atoms=np.array([len(one) for one in z], dtype=np.int32),
            molecule=owner,
            split=code,
            names=np.array([name.encode() for name in names], dtype=np.bytes_),
        )

    def sizes(self) -> dict[str, int]:
        """Samples per split."""
        return {name: int((self.split == code).sum()) for code, name in enumerate(SPLITS)}

    def molecules(self) -> dict[str, int]:
        """Distinct molecules per split."""
        return {name: len(np.unique(self.molecule[self.split == code])) for code, name in enumerate(SPLITS)}


def split_code(name: str) -> int:
    """Index into ``SPLITS`` of a molecule, by ``SPLIT_RULE``."""
    u = int.from_bytes(hashlib.sha256(f"split {name}".encode()).digest()[:8], "big") / 2**64
    return 2 if u < 0.2 else 1 if u < 0.3 else 0


def card_path(archive: Path, suffix: str = ".json") -> Path:
    """The card beside a data file."""
    return archive.with_suffix(suffix)


def write(
    archive: Archive, out: Path, *, recipe: Mapping[str, Any], licences: Mapping[str, str] = LICENCES, rule: str = SPLIT_RULE
) -> Path:
    """Write ``out`` (.npz, atomically) and its cards (.json for the loader, .md for people); returns ``out``."""
    out.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{item.name: getattr(archive, item.name) for item in fields(archive)})
    content = buffer.getvalue()
    norms = np.linalg.norm(archive.forces, axis=1)
    card = {
        "name": out.stem,
        "version": VERSION,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "sizes": archive.sizes(),
        "molecules": archive.molecules(),
        "atoms": len(archive.z),
        "elements": {str(number): int((archive.z == number).sum()) for number in np.unique(archive.z)},
        "force_component_rms": round(float(np.sqrt(np.mean(archive.forces.astype(np.float64) ** 2))), 4),
        "force_norm_p50_p90_p99_max": [round(float(q), 3) for q in np.quantile(norms, [0.5, 0.9, 0.99, 1.0])],
        "units": UNITS,
        "split_rule": rule,
        "licences": dict(licences),
        "recipe": dict(recipe),
    }
    replace(out, content)
    replace(card_path(out), (json.dumps(card, indent=2) + "\n").encode())
    replace(card_path(out, ".md"), _markdown(card).encode())
    return out


def replace(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` in one step, so that a reader sees the old file or the new one."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise FailedError(
            f"cannot write {path}: {error.strerror}; free some space or point EQUIVBENCH_CACHE elsewhere"
        ) from error


def read_card(path: Path) -> dict[str, Any]:
    """The .json card beside the data file ``path``; raises ``FailedError`` if it is missing or broken."""
    try:
        card: dict[str, Any] = json.loads(card_path(path).read_bytes())
    except OSError as error:
        raise FailedError(
            f"{card_path(path)} cannot be read: {error.strerror}; run 'equivbench data prepare {path.stem}'"
        ) from error
    except ValueError as error:
        raise FailedError(
            f"{card_path(path)} is not valid JSON; delete it and run 'equivbench data prepare {path.stem}'"
        ) from error
    if not isinstance(card, dict) or not {"version", "sha256", "sizes"} <= set(card):
        raise FailedError(f"{card_path(path)} is not a data card; delete it and run 'equivbench data prepare {path.stem}'")
    return card


def verified_content(path: Path, sha256: str) -> bytes:
    """The bytes of ``path`` after checking their SHA-256; raises ``FailedError`` if missing or different."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FailedError(f"{path} cannot be read: {error.strerror}; run 'equivbench data prepare {path.stem}'") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise FailedError(
            f"{path} ({len(content)} bytes) has SHA-256 {found[:12]}... and its card says {sha256[:12]}...: it is cut short or changed; "
            f"delete it and run 'equivbench data prepare {path.stem}' (a shipped set: reinstall equivbench)"
        )
    return content


def read(path: Path, sha256: str) -> Archive:
    """The archive at ``path``; raises ``FailedError`` if it is missing, cut short, or of the wrong content."""
    content = verified_content(path, sha256)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            archive = Archive(**{item.name: arrays[item.name] for item in fields(Archive)})
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise FailedError(
            f"{path} is not a force-field archive ({error}); delete it and run 'equivbench data prepare {path.stem}'"
        ) from error
    atoms, samples = len(archive.z), len(archive.n_atoms)
    shapes = (archive.pos.shape, archive.forces.shape, archive.energy.shape, archive.molecule.shape, archive.split.shape)
    if archive.n_atoms.sum() != atoms or shapes != ((atoms, 3), (atoms, 3), (samples,), (samples,), (samples,)):
        raise FailedError(f"the arrays of {path} disagree in length; delete it and run 'equivbench data prepare {path.stem}'")
    return archive


def _markdown(card: Mapping[str, Any]) -> str:
    recipe = "\n".join(f"- **{key}**: {_plain(value)}" for key, value in card["recipe"].items())
    licences = "\n".join(f"- **{key}**: {value}" for key, value in card["licences"].items())
    counts = "\n".join(f"| {split} | {card['molecules'][split]} | {card['sizes'][split]} |" for split in SPLITS)
    p50, p90, p99, most = card["force_norm_p50_p90_p99_max"]
    return f"""# {card["name"]} (version {card["version"]})

Written by the generator together with the data; the same facts for programs are in the `.json` file.

| split | molecules | conformations |
|---|---|---|
{counts}

{card["atoms"]} atoms, {card["bytes"]} bytes, SHA-256 `{card["sha256"]}`.
Atoms per atomic number: {_plain(card["elements"])}.
Force component RMS {card["force_component_rms"]} eV/A; |F| p50/p90/p99/max {p50}/{p90}/{p99}/{most} eV/A.

## Recipe
{recipe}

## Units
{_plain(card["units"])}.

## Split
{card["split_rule"][0].upper() + card["split_rule"][1:]}.

## Licence
{licences}
"""


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
