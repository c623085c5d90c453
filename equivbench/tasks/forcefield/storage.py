"""An archive on disk: one .npz with a card for programs (.json, its SHA-256 inside) and one for people (.md)."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from equivbench.errors import FailedError
from equivbench.records.files import write_atomically
from equivbench.tasks.forcefield.archive import SPLIT_RULE, SPLITS, Archive

VERSION = "1"
UNITS = {"pos": "A", "forces": "eV/A", "energy": "eV (total)", "z": "atomic number"}


def write(
    archive: Archive, out: Path, *, recipe: Mapping[str, Any], licences: Mapping[str, str], split_rule: str = SPLIT_RULE
) -> Path:
    """Write ``out`` (.npz) and its cards, each atomically, the .json last; returns ``out``.

    Raises ``FailedError`` if the folder cannot be written.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{item.name: getattr(archive, item.name) for item in fields(archive)})
    content = buffer.getvalue()
    norms = np.linalg.norm(archive.forces, axis=1)
    numbers = np.bincount(archive.z)
    card = {
        "name": out.stem,
        "version": VERSION,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "sizes": archive.sizes(),
        "molecules": archive.molecules(),
        "atoms": len(archive.z),
        "elements": {str(number): int(numbers[number]) for number in np.flatnonzero(numbers)},
        "force_component_rms": round(float(np.sqrt(np.mean(np.square(archive.forces, dtype=np.float64)))), 4),
        "force_norm_p50_p90_p99_max": [round(float(q), 3) for q in np.quantile(norms, [0.5, 0.9, 0.99, 1.0])],
        "units": UNITS,
        "split_rule": split_rule,
        "licences": dict(licences),
        "recipe": dict(recipe),
    }
    write_atomically(out, content)
    write_atomically(out.with_suffix(".md"), _markdown(card).encode())
    write_atomically(out.with_suffix(".json"), (json.dumps(card, indent=2) + "\n").encode())
    return out


def read_card(path: Path) -> dict[str, Any]:
    """The .json card beside the data file ``path``; raises ``FailedError`` if it is missing or broken."""
    where = path.with_suffix(".json")
    try:
        card = json.loads(where.read_bytes())
    except OSError as error:
        raise FailedError(f"{where} cannot be read ({error.strerror}); {_remedy(path)}") from error
    except ValueError as error:
        raise FailedError(f"{where} is not valid JSON; {_remedy(path)}") from error
    if not (isinstance(card, dict) and isinstance(card.get("sha256"), str) and isinstance(card.get("version"), str)):
        raise FailedError(f"{where} is not the card of a data set; {_remedy(path)}")
    return card


def verified_content(path: Path) -> tuple[bytes, dict[str, Any]]:
    """(bytes, card) of ``path``; raises ``FailedError`` if it is missing or its SHA-256 is not the card's."""
    card = read_card(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FailedError(f"{path} cannot be read ({error.strerror}); {_remedy(path)}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != card["sha256"]:
        raise FailedError(
            f"{path} ({len(content)} bytes, SHA-256 {found[:12]}...) is cut short or changed: "
            f"its card says {card['sha256'][:12]}...; {_remedy(path)}"
        )
    return content, card


def read(path: Path) -> tuple[Archive, dict[str, Any]]:
    """(archive, card) of ``path``; raises ``FailedError`` if a file is missing, cut short, or of the wrong content."""
    content, card = verified_content(path)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            archive = Archive(**{item.name: arrays[item.name] for item in fields(Archive)})
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise FailedError(f"{path} is not a force-field archive ({error}); {_remedy(path)}") from error
    atoms, samples = len(archive.z), len(archive.n_atoms)
    shapes = (archive.pos.shape, archive.forces.shape, archive.energy.shape, archive.molecule.shape, archive.split.shape)
    if archive.n_atoms.sum() != atoms or shapes != ((atoms, 3), (atoms, 3), (samples,), (samples,), (samples,)):
        raise FailedError(f"the arrays of {path} disagree in length; {_remedy(path)}")
    return archive, card


def _remedy(path: Path) -> str:
    return f"delete it if it is there and run `equivbench data prepare {path.stem}` (a shipped set: reinstall equivbench)"


def _markdown(card: Mapping[str, Any]) -> str:
    recipe = "\n".join(f"- **{key}**: {_plain(value)}" for key, value in card["recipe"].items())
    licences = "\n".join(f"- **{key}**: {value}" for key, value in card["licences"].items())
    counts = "\n".join(f"| {split} | {card['molecules'][split]} | {card['sizes'][split]} |" for split in SPLITS)
    p50, p90, p99, most = card["force_norm_p50_p90_p99_max"]
    return f"""# {card["name"]} (version {card["version"]})

Written together with the data; the same facts for programs are in the `.json` file.

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
