"""The table of force-field conformations: its columns, how they are gathered, and what the cards
say of them, of molecules and of crystals; conversion to eV and A (CODATA 2018). Imports no
torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivbench.tasks.physical import CLOSEST, TOO_NEAR, closest
from equivbench.tasks.storage import (
    Layout,
    RaggedColumn,
    RaggedTable,
    TableBuilder,
    plain,
    split_rule,
)

HARTREE = 27.211386245988
"""eV in one Hartree."""
BOHR = 0.529177210903
"""A in one bohr."""
KCAL_PER_MOL = 4184 / 96485.33212331
"""eV in one kcal/mol: joules a kcal over coulombs a mole of elementary charges."""
MOST_NUMBER = 99
"""The largest atomic number that the networks have an embedding for."""
MOST_FORCE = HARTREE / BOHR
"""eV/A: one atomic unit. A larger force is that of atoms pushed into one another, or of a
calculation that did not converge, and would rule a squared error."""
CHARGED = "of charged molecules"
"""Why a conformation is left out: its labels are those of its total charge, which no model is
told."""

LAYOUT = Layout(
    kind="force-field",
    columns={
        "z": RaggedColumn("item", np.uint8),
        "pos": RaggedColumn("item", np.float32, (3,)),
        "forces": RaggedColumn("item", np.float32, (3,)),
        "energy": RaggedColumn("sample", np.float64),
        "n_atoms": RaggedColumn("sample", np.int32),
        "molecule": RaggedColumn("sample", np.int32),
        "split": RaggedColumn("sample", np.uint8),
        "names": RaggedColumn("unit", np.bytes_),
    },
    unit="molecule",
    items="atoms",
    positions="pos",
    samples="conformations",
    units={"pos": "A", "forces": "eV/A", "energy": "eV (total)", "z": "atomic number"},
    split_rule=split_rule("by molecule", "the canonical SMILES or the name that the source gives"),
)
_OF_CELLS = {
    "cell": RaggedColumn("sample", np.float32, (3, 3)),
    "pbc": RaggedColumn("sample", np.bool_, (3,)),
    "stress": RaggedColumn("sample", np.float32, (3, 3)),
}
_SHARED = {name: column for name, column in LAYOUT.columns.items() if name != LAYOUT.unit}
PERIODIC_LAYOUT = replace(
    LAYOUT,
    kind="periodic force-field",
    columns={**_SHARED, "crystal": LAYOUT.columns[LAYOUT.unit], **_OF_CELLS},
    unit="crystal",
    samples="structures",
    units={
        **LAYOUT.units,
        "cell": "A (rows are the lattice vectors)",
        "pbc": "whether it repeats along each",
        "stress": "eV/A^3 (positive under tension)",
    },
    split_rule=split_rule("by crystal", "the name that the source gives"),
)
"""The same of periodic structures, which are conformations of a crystal."""
PERIODIC_FIELDS = tuple(_OF_CELLS)
"""What a sample of these has beside those of molecules."""


class ConformationBuilder(TableBuilder):
    """Gathers labelled conformations, molecule by molecule."""

    def __init__(self) -> None:
        super().__init__(LAYOUT)

    def add(
        self,
        name: str,
        z: NDArray[np.integer],
        pos: NDArray[np.floating],
        forces: NDArray[np.floating],
        energy: NDArray[np.floating],
        split: str | None = None,
        *,
        identity: str | None = None,
    ) -> None:
        """Add k conformations of the molecule ``name``; those that cannot be physical are left out
        and counted: values that are not finite, atoms nearer than ``CLOSEST``, forces above
        ``MOST_FORCE``.

        Parameters
        ----------
        z
            [atoms] atomic numbers.
        pos, forces
            [k, atoms, 3] in A and eV/A.
        energy
            [k] total energies in eV.
        split
            None for the split that the identity draws.
        identity
            What tells molecules apart where one has several names; None for the name.
        """
        finite = (
            np.isfinite(pos).all((1, 2)) & np.isfinite(forces).all((1, 2)) & np.isfinite(energy)
        )
        near, strong = np.zeros((2, len(finite)), dtype=bool)
        near[finite] = [closest(each) < CLOSEST for each in pos[finite]]
        strong[finite] = np.linalg.norm(forces[finite], axis=2).max(1, initial=0) > MOST_FORCE
        kept = np.ones(len(finite), dtype=bool)
        for reason, so in (
            ("with values that are not finite", ~finite),
            (TOO_NEAR, near),
            (f"with a force above {MOST_FORCE:.1f} eV/A", strong),
        ):
            if number := int((kept & so).sum()):
                self.left_out[reason] += number
            kept &= ~so
        if number := int(kept.sum()):
            self.add_samples(
                name,
                np.full(number, len(z)),
                split,
                identity=identity,
                z=np.tile(z, number),
                pos=pos[kept],
                forces=forces[kept],
                energy=energy[kept],
            )


def facts(table: RaggedTable) -> tuple[dict[str, Any], str]:
    """What the cards say of the content: for programs and for people."""
    norms = np.linalg.norm(table["forces"], axis=1)
    numbers = np.bincount(table["z"])
    elements = {str(number): int(numbers[number]) for number in np.flatnonzero(numbers)}
    net = np.add.reduceat(table["forces"].astype(np.float64), table.first)
    unbalanced = np.linalg.norm(net, axis=1) / table.counts
    nets = [round(float(each), 5) for each in (unbalanced.mean(), unbalanced.max())]
    rms = round(float(np.sqrt(np.mean(np.square(table["forces"], dtype=np.float64)))), 4)
    quantiles = [round(float(q), 3) for q in np.quantile(norms, [0.5, 0.9, 0.99, 1.0])]
    card = {
        "elements": elements,
        "force_component_rms": rms,
        "force_norm_p50_p90_p99_max": quantiles,
        "net_force_per_atom_mean_max": nets,
    }
    return (
        card,
        f"""{len(table["z"])} atoms, {{bytes}} bytes, SHA-256 `{{sha256}}`.
Atoms per atomic number: {plain(elements)}.
Force component RMS {rms} eV/A; |F| p50/p90/p99/max {"/".join(map(str, quantiles))} eV/A.
Net force of a {table.layout.unit} per atom, which is 0 for exact forces, mean/max \
{"/".join(map(str, nets))} eV/A.""",
    )
