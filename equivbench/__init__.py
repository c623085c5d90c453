"""equivbench: equivariant networks against augmented ones, under equal budgets."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "random_rotations": "equivbench.symmetry.rotations",
    "octahedral_rotations": "equivbench.symmetry.rotations",
    "decompose": "equivbench.symmetry.decomposition",
    "Decomposition": "equivbench.symmetry.decomposition",
    "measure_equivariance": "equivbench.measure.equivariance",
    "Measurement": "equivbench.measure.equivariance",
    "register_task": "equivbench.registration",
    "register_model": "equivbench.registration",
    "register_pair": "equivbench.registration",
    "register_dataset": "equivbench.registration",
    "register_kernel_backend": "equivbench.registration",
    "run": "equivbench.execution.api",
    "RunRecord": "equivbench.records.schema",
    "load_results": "equivbench.records.store",
    "efficiency_gap": "equivbench.gap.efficiency",
    "EquivbenchError": "equivbench.errors",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name's home on first use (PEP 562), so that ``import equivbench`` stays free
    of torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'equivbench' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
