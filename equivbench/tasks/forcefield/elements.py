"""Atomic numbers of the elements that the force-field sets hold: those of SPICE."""

from __future__ import annotations

NUMBERS = {
    "H": 1, "Li": 3, "B": 5, "C": 6, "N": 7, "O": 8, "F": 9, "Na": 11, "Mg": 12, "Si": 14, "P": 15, "S": 16,
    "Cl": 17, "K": 19, "Ca": 20, "Br": 35, "I": 53,
}  # fmt: skip
