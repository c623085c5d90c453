"""equivbench: equivariant networks against augmented ones, under equal budgets.

Every public name, imported on first use (PEP 562), so that ``import equivbench`` itself imports no
torch. ``__init__.pyi`` says which there are and where they live, to type checkers and to this file.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

_STUB = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
_HOMES = {name: module for module, name in re.findall(r"from (\S+) import (\w+) as \2\n", _STUB)}
_HOMES["run"] = "equivbench.execution.executors"  # its keywords are spelt out in the stub
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name's home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'equivbench' has no attribute {name!r}")
    home = importlib.import_module(_HOMES[name])
    # What is no attribute of its home yet is a module in it.
    value = getattr(home, name, None) or importlib.import_module(f"{_HOMES[name]}.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
