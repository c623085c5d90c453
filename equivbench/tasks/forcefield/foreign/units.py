"""Units that foreign networks reckon in. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

from equivbench.errors import unknown_name
from equivbench.tasks.forcefield.table import BOHR, HARTREE, KCAL_PER_MOL

ENERGIES: Mapping[str, float] = {
    "eV": 1.0,
    "kcal/mol": KCAL_PER_MOL,
    "kJ/mol": KCAL_PER_MOL / 4.184,
    "Hartree": HARTREE,
    "Rydberg": HARTREE / 2,
}
"""eV in one of each."""
LENGTHS: Mapping[str, float] = {"A": 1.0, "Bohr": BOHR, "nm": 10.0}
"""A in one of each."""


def unit_of(name: str, units: Mapping[str, float], what: str) -> float:
    """The value of the unit ``name``, in whatever case it is written; raises ``UsageError``."""
    known = {each.lower(): value for each, value in units.items()}
    if name.lower() not in known:
        raise unknown_name(f"unit of {what}", name, units)
    return known[name.lower()]
