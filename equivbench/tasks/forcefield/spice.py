"""Converts SPICE (HDF5, extra ``spice``): a group a molecule, every one checked against itself.
Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivbench.environment import required
from equivbench.errors import FailedError
from equivbench.tasks.archives import cannot_be_read, location, must_exist
from equivbench.tasks.forcefield.table import (
    BOHR,
    CHARGED,
    HARTREE,
    KCAL_PER_MOL,
    MOST_NUMBER,
    ConformationBuilder,
    facts,
)
from equivbench.tasks.molecules import charge_of, identity_of
from equivbench.tasks.storage import USERS_COPY, split_rule

_LENGTHS = {"bohr": BOHR, "angstrom": 1.0, "nm": 10.0}
_ENERGIES = {
    "hartree": HARTREE,
    "ev": 1.0,
    "kj/mol": KCAL_PER_MOL / 4.184,
    "kcal/mol": KCAL_PER_MOL,
}
_FORCES = {
    f"{energy}/{length}": _ENERGIES[energy] / _LENGTHS[length]
    for energy, length in product(_ENERGIES, _LENGTHS)
}
UNITS = {
    "conformations": ("bohr", _LENGTHS),
    "dft_total_energy": ("hartree", _ENERGIES),
    "dft_total_gradient": ("hartree/bohr", _FORCES),
}
"""By data set: its unit as published, and what one of each unit that is known is in A, eV or
eV/A."""
_OTHER_NAMES = {"angstroms": "angstrom", "a": "angstrom", "\u00e5": "angstrom", "nanometer": "nm"}
_CELLS = ("cell", "lattice", "box", "pbc")


def published(_: str = "") -> Path:
    """Where the user has the file."""
    return location("SPICE", "SPICE.hdf5")


def build_spice(out: Path) -> None:
    """``out`` from ``SPICE.hdf5``, in eV and A; split by molecule.

    Conformations that no model can learn from are left out and counted on the card. Raises
    ``FailedError``, naming the file and the group, for one whose parts disagree or that says
    something else of itself than SPICE does.
    """
    h5py = required("h5py", "SPICE is read", "spice")
    source = published()
    must_exist(source, "SPICE", "the file from github.com/openmm/spice-dataset/releases")
    builder = ConformationBuilder()
    subsets, no_charge = Counter[str](), 0
    try:
        with h5py.File(source, "r") as file:
            for molecule in molecules(file, source):
                subsets[molecule.subset] += len(molecule.energy)
                if molecule.smiles is None:
                    no_charge += len(molecule.energy)
                elif charge_of(molecule.smiles):
                    builder.left_out[CHARGED] += len(molecule.energy)
                    continue
                builder.add(
                    molecule.name,
                    molecule.z,
                    molecule.pos,
                    molecule.forces,
                    molecule.energy,
                    identity=identity_of(molecule.name),
                )
    except FailedError:
        raise
    except Exception as error:  # h5py raises anything for a damaged file
        # Of the system's own errors it keeps the number.
        if isinstance(error, OSError) and error.errno:
            raise cannot_be_read(source, error) from error
        raise FailedError(
            f"{source} is not SPICE as published, or is cut short ({error}); fetch it again"
        ) from error
    table = builder.finish(str(source))
    builder.warn_of_left_out(str(source), len(table.counts))
    recipe = {
        "source": f"SPICE (Eastman et al. 2023), {source.name}",
        "labels": "wB97M-D3(BJ)/def2-TZVPPD; force = minus dft_total_gradient",
        "conformations per subset, before leaving out": dict(subsets),
        "conformations left out": dict(builder.left_out),
        "conformations of molecules without a SMILES, so of unknown charge": no_charge,
    }
    rule = split_rule(
        "by molecule",
        "its identity_of(SMILES) (equivbench.tasks.molecules), which no order of atoms "
        "and no atom map changes",
    )
    table.write(
        out,
        *facts(table),
        recipe=recipe,
        licences=USERS_COPY,
        split_rule=rule,
        sources={source.name: source},
    )


@dataclass(frozen=True)
class SpiceMolecule:
    """One group: z [atoms]; pos (A) and forces (eV/A) [k, atoms, 3]; energy [k] eV; ``name`` is the
    SMILES or, where there is none, the group's."""

    name: str
    smiles: str | None
    subset: str
    z: NDArray[np.integer]
    pos: NDArray[np.float64]
    forces: NDArray[np.float64]
    energy: NDArray[np.float64]


def molecules(file: Any, source: Path) -> Iterator[SpiceMolecule]:
    """The groups of an open file, one at a time; raises ``FailedError``, naming ``source`` and the
    group."""
    for key in file:
        try:
            molecule = _molecule(key, file[key])
        except _WrongGroupError as error:
            raise FailedError(
                f"{source}: group {key!r} {error}; fetch the file again, or mend the group"
            ) from error
        except Exception as error:  # h5py raises anything for what is damaged
            # Of the system's own errors it keeps the number.
            if isinstance(error, OSError) and error.errno:
                raise
            raise FailedError(
                f"{source}: group {key!r} cannot be read ({error}); fetch the file again, or mend "
                "the group"
            ) from error
        yield molecule


class _WrongGroupError(Exception):
    """A group that is not one of SPICE's; the message goes on after the group's name."""


def _molecule(key: str, group: Any) -> SpiceMolecule:
    names = ("atomic_numbers", *UNITS)
    if missing := [name for name in names if not hasattr(group, "keys") or name not in group]:
        raise _WrongGroupError(f"has no {' and no '.join(missing)}")
    arrays = {name: np.asarray(group[name]) for name in names}
    z, pos, energy, gradient = arrays.values()
    if not (z.ndim == 1 and len(z) and pos.shape == gradient.shape == (*energy.shape, len(z), 3)):
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise _WrongGroupError(f"holds arrays that disagree in shape ({shapes})")
    if energy.ndim != 1:
        raise _WrongGroupError(f"holds energies of shape {list(energy.shape)}")
    if texts := [name for name in UNITS if arrays[name].dtype.kind not in "fiu"]:
        raise _WrongGroupError(f"holds what is no numbers ({' and '.join(texts)})")
    unknown = z[(z < 1) | (z > MOST_NUMBER)] if z.dtype.kind in "iu" else z
    if len(unknown):
        raise _WrongGroupError(
            f"has the atomic number {unknown[0]}, and those from 1 to {MOST_NUMBER} are known"
        )
    if cells := [name for name in _CELLS if name in group and _is_set(group[name])]:
        raise _WrongGroupError(
            f"is periodic ({' and '.join(cells)}), and these data are of molecules"
        )
    length, unit, force = _units(group)
    smiles = _text(group, "smiles")
    return SpiceMolecule(
        name=smiles or key,
        smiles=smiles,
        subset=_text(group, "subset") or "unnamed",
        z=z,
        pos=pos * np.float64(length),
        forces=gradient * np.float64(-force),
        energy=energy * np.float64(unit),
    )


def _is_set(cell: Any) -> bool:
    return hasattr(cell, "keys") or bool(np.any(cell[()]))


def _units(group: Any) -> list[float]:
    """What one of the units of positions, energies and gradients is in A, eV and eV/A."""
    stated = {name: _unit(group[name]) for name in UNITS}
    other = {name: unit for name, unit in stated.items() if unit not in (None, UNITS[name][0])}
    silent = [name for name, unit in stated.items() if unit is None]
    if other and silent:
        said = ", ".join(f"{name} in {unit}" for name, unit in other.items())
        raise _WrongGroupError(f"gives {said}, and does not say the unit of {' and '.join(silent)}")
    factors = []
    for name, (published_unit, known) in UNITS.items():
        unit = stated[name] or published_unit
        if unit not in known:
            raise _WrongGroupError(f"gives {name} in {unit!r}; known are {', '.join(known)}")
        factors.append(known[unit])
    return factors


def _unit(array: Any) -> str | None:
    """The unit that a data set states, in lower case, or None."""
    stated = array.attrs.get("units", array.attrs.get("unit"))
    if stated is None:
        return None
    text = stated.decode() if isinstance(stated, bytes) else str(stated)
    words = text.replace(" ", "").lower().split("/")
    return "/".join(_OTHER_NAMES.get(word, word) for word in words)


def _text(group: Any, name: str) -> str | None:
    """The first string of a data set, or None if there is none."""
    if name not in group:
        return None
    found = np.ravel(group[name].asstr()[()])
    return str(found[0]) if len(found) else None
