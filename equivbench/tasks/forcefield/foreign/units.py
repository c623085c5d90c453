"""Units that foreign networks reckon in, and the atomic numbers of all elements. Imports no
torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from equivbench.errors import UsageError, unknown_name
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
_PERIODIC_TABLE = """
H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr
Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb
Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr
Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
"""
_SYMBOLS = _PERIODIC_TABLE.split()
_NUMBERS = {symbol: number for number, symbol in enumerate(_SYMBOLS, 1)}


def unit_of(name: str, units: Mapping[str, float], what: str) -> float:
    """The value of the unit ``name``, in whatever case it is written; raises ``UsageError``."""
    known = {each.lower(): value for each, value in units.items()}
    if name.lower() not in known:
        raise unknown_name(f"unit of {what}", name, units)
    return known[name.lower()]


def atomic_numbers(elements: Iterable[int | str]) -> tuple[int, ...]:
    """The atomic numbers of ``elements``, given as numbers or symbols, in their order.

    Raises ``UsageError`` for what is no element, and for one that is named twice.
    """
    found = []
    for each in elements:
        number = _NUMBERS.get(each) if isinstance(each, str) else int(each)
        if number is None or not 0 < number <= len(_SYMBOLS):
            raise UsageError(f"{each!r} is no chemical element; give symbols or atomic numbers")
        if number in found:
            raise UsageError(f"element {symbol(number)} is named twice")
        found.append(number)
    return tuple(found)


def symbol(number: int) -> str:
    """The symbol of the element of this atomic number, or the number as text."""
    return _SYMBOLS[number - 1] if 0 < number <= len(_SYMBOLS) else str(number)
