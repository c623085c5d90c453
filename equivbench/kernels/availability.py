"""Whether a kernel backend can be there at all, told without importing it."""

from __future__ import annotations

import importlib.util

from equivbench.registry import KernelBackendSpec


def absent(spec: KernelBackendSpec, device: str | None = None) -> str | None:
    """Why ``spec`` cannot run here and how to get it; None where nothing speaks against it.

    ``device`` is a torch device (``cpu``, ``cuda:0``) or None for any. What only the library itself
    can tell, such as a missing compiler, is left to
    :meth:`equivbench.kernels.backend.Backend.missing`.
    """
    if device is not None and device.partition(":")[0] not in spec.devices:
        return f"{spec.name} runs on {' and '.join(spec.devices)} only"
    missing = [module for module in spec.needs if not _importable(module)]
    if not missing:
        return None
    advice = f": {spec.install}" if spec.install else ""
    return f"{spec.name} needs {', '.join(missing)}, not installed here{advice}"


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (
        ImportError,
        ValueError,
    ):  # a parent package that is not there, or that breaks as it is imported
        return False
