"""The chemical elements, by symbol and atomic number. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from equivbench.errors import UsageError

_TABLE = """
H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr
Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb
Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr
Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
"""
SYMBOLS = tuple(_TABLE.split())
"""In the order of their atomic numbers, from 1."""
NUMBER_OF: Mapping[str, int] = {symbol: number for number, symbol in enumerate(SYMBOLS, 1)}
"""Atomic number by symbol."""


def atomic_numbers(elements: Iterable[int | str]) -> tuple[int, ...]:
    """The atomic numbers of ``elements``, given as numbers or symbols, in their order.

    Raises ``UsageError`` for what is no element, and for one that is named twice.
    """
    found = []
    for each in elements:
        number = NUMBER_OF.get(each) if isinstance(each, str) else int(each)
        if number is None or not 0 < number <= len(SYMBOLS):
            raise UsageError(f"{each!r} is no chemical element; give symbols or atomic numbers")
        if number in found:
            raise UsageError(f"element {symbol(number)} is named twice")
        found.append(number)
    return tuple(found)


def symbol(number: int) -> str:
    """The symbol of the element of this atomic number, or the number as text."""
    return SYMBOLS[number - 1] if 0 < number <= len(SYMBOLS) else str(number)
