"""equivbench: equivariant networks against augmented ones, under equal budgets.

Every public name, imported on first use (PEP 562), so that ``import equivbench`` itself imports no
torch. ``__init__.pyi`` says the same to type checkers.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC: dict[str, tuple[str, ...]] = {
    # Rotations, and how symmetric a prediction is.
    "equivbench.symmetry.rotations": ("random_rotations", "octahedral_rotations"),
    "equivbench.symmetry.decomposition": ("decompose", "Decomposition"),
    "equivbench.measure.equivariance": ("measure_equivariance",),
    "equivbench.measure.measurement": ("Measurement",),
    # Runs and what follows from their records.
    "equivbench.execution.executors": ("run",),
    "equivbench.records.schema": ("RunRecord",),
    "equivbench.records.store": ("load_results",),
    "equivbench.gap.efficiency": ("efficiency_gap",),
    # A task, data set, model, pair, kernel backend or executor of one's own.
    "equivbench.registry": (
        "register_task",
        "register_dataset",
        "register_model",
        "register_pair",
        "register_kernel_backend",
        "register_executor",
    ),
    "equivbench.specs": (
        "Field",
        "TaskSpec",
        "DatasetSpec",
        "ModelSpec",
        "KernelBackendSpec",
        "ExecutorSpec",
        "PairSpec",
        "ArmSpec",
        "ArmPreset",
        "Recipe",
        "PairPreset",
        "MatchSpec",
        "simple_pair",
    ),
    "equivbench.tasks.base": ("Task", "TaskData", "Split", "Card", "DatasetSource", "Feedback"),
    "equivbench.tasks.arrays": ("ArrayTask", "ArrayData"),
    "equivbench.kernels.backend": ("Backend", "Kernel", "UnsupportedError"),
    # What can go wrong.
    "equivbench.errors": (
        "EquivbenchError",
        "UsageError",
        "FailedError",
        "IncomparableError",
        "InterruptedRunError",
        "EquivbenchWarning",
    ),
}
_HOMES = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name's home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'equivbench' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
