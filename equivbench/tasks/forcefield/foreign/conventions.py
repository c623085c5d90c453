"""How the networks of known packages are called and what they return."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from equivbench.errors import unknown_name
from equivbench.tasks.forcefield.foreign.values import Source

Call = Literal["keywords", "mapping"] | Callable[[Any, Mapping[str, Any]], Any]
"""Arguments by keyword, as one mapping, or a function of the network and the mapping."""
Key = str | int
"""Where an output is: a key or attribute of what is returned, or a position in it."""


@dataclass(frozen=True)
class Convention:
    """What a package's networks take and give. ``elements`` and ``cutoff`` read what a network
    knows of itself, or give None."""

    call: Call = "keywords"
    inputs: Mapping[str, Source] = field(default_factory=dict)
    """By the argument's name; empty: those of the task's inputs that the network takes."""
    outputs: Mapping[str, Key] = field(default_factory=dict)
    """Of ``energy``, ``forces`` and ``stress``; those that are not returned are left out."""
    elements: Callable[[Any], Sequence[int | str] | None] = lambda network: None
    cutoff: Callable[[Any], float | None] = lambda network: None
    periodic: Mapping[str, Source] = field(default_factory=dict)
    """Arguments that are others, or there at all, where the structures are periodic; empty: it does
    not look at cells."""


def _nequip_elements(network: Any) -> Sequence[str] | None:
    found: Sequence[str] | None = getattr(network, "type_names", None)
    return found or None


def _nequip_cutoff(network: Any) -> float | None:
    found = getattr(network, "metadata", {}).get("r_max")
    return None if found is None else float(found)


def _mace_elements(network: Any) -> Sequence[int] | None:
    found = getattr(network, "atomic_numbers", None)
    return None if found is None else [int(each) for each in found]


def _mace_cutoff(network: Any) -> float | None:
    found = getattr(network, "r_max", None)
    return None if found is None else float(found)


def _schnetpack_cutoff(network: Any) -> float | None:
    found = getattr(getattr(network, "representation", None), "cutoff", None)
    return None if found is None else float(found)


CONVENTIONS: Mapping[str, Convention] = {
    "schnetpack": Convention(
        call="mapping",
        inputs={
            "_atomic_numbers": "z",
            "_positions": "pos",
            "_idx_m": "batch",
            "_idx_i": "targets",
            "_idx_j": "sources",
            "_n_atoms": "n_atoms",
            "_offsets": "no_shifts",
            "_cell": "no_cell",
            "_pbc": lambda values: values["no_pbc"].flatten(),
        },
        outputs={"energy": "energy", "forces": "forces", "stress": "stress"},
        cutoff=_schnetpack_cutoff,
        periodic={
            "_offsets": "shifts",
            "_cell": "cell",
            "_pbc": lambda values: values["pbc"].flatten(),
        },
    ),
    "nequip": Convention(
        call="mapping",
        inputs={
            "pos": "pos",
            "atom_types": "types",
            "edge_index": "edge_index_reversed",
            "batch": "batch",
            "num_atoms": "n_atoms",
        },
        outputs={"energy": "total_energy", "forces": "forces", "stress": "stress"},
        elements=_nequip_elements,
        cutoff=_nequip_cutoff,
        periodic={"cell": "cell", "edge_cell_shift": "cell_shifts"},
    ),
    "mace": Convention(
        call="mapping",
        inputs={
            "positions": "pos",
            "node_attrs": "one_hot",
            "edge_index": "edge_index",
            "batch": "batch",
            "ptr": "ptr",
            "shifts": "no_shifts",
            "unit_shifts": "no_shifts",
            "cell": lambda values: values["no_cell"].flatten(0, 1),
        },
        outputs={"energy": "energy", "forces": "forces", "stress": "stress"},
        elements=_mace_elements,
        cutoff=_mace_cutoff,
        # It moves the targets, not the sources.
        periodic={
            "shifts": lambda values: -values["shifts"],
            "unit_shifts": lambda values: -values["cell_shifts"],
            "cell": lambda values: values["cell"].flatten(0, 1),
        },
    ),
}
"""By the package that a network's class comes from."""


def convention_of(network: nn.Module, name: str | None) -> Convention:
    """The convention called ``name``, or that of the package that ``network``'s class comes from,
    or the plain one; raises ``UsageError`` for another name."""
    if name is not None:
        if name not in CONVENTIONS:
            raise unknown_name("convention", name, CONVENTIONS)
        return CONVENTIONS[name]
    packages = [kind.__module__.partition(".")[0] for kind in type(network).__mro__]
    return next((CONVENTIONS[each] for each in packages if each in CONVENTIONS), Convention())
