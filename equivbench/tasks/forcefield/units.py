"""Conversion to eV and A of what codes and published files speak (CODATA 2018)."""

from __future__ import annotations

HARTREE = 27.211386245988
"""eV in one Hartree."""
BOHR = 0.529177210903
"""A in one bohr."""
KCAL_PER_MOL = 4184 / 96485.33212331
"""eV in one kcal/mol: joules a kcal over coulombs a mole of elementary charges."""
