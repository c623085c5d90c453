"""Constants: conversion to eV and A of what codes and published files speak (CODATA 2018), and the
elements that the sets hold."""

from __future__ import annotations

HARTREE = 27.211386245988
"""eV in one Hartree."""
BOHR = 0.529177210903
"""A in one bohr."""
KCAL_PER_MOL = 4184 / 96485.33212331
"""eV in one kcal/mol: joules a kcal over coulombs a mole of elementary charges."""
NUMBERS = {
    "H": 1, "Li": 3, "B": 5, "C": 6, "N": 7, "O": 8, "F": 9, "Na": 11, "Mg": 12, "Si": 14,
    "P": 15, "S": 16, "Cl": 17, "K": 19, "Ca": 20, "Br": 35, "I": 53,
}  # fmt: skip
"""Atomic numbers by symbol, of the elements of SPICE."""
