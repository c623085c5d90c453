"""The built-in kernel backends, one file each, as the registry lists them, and whether one can be
there. Imports no torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from equivbench.registry import KERNEL_BACKENDS
from equivbench.specs import KernelBackendSpec

_FOLDER = "equivbench.kernels.backends"
_KINDS = {"cpu": "CPU", "cuda": "GPU"}
"""What people call the kinds of device."""
_OF_E3NN = (
    *("convolution", "spherical-harmonics", "linear", "steerable-convolution"),
    "symmetric-contraction",
)

BACKENDS: tuple[KernelBackendSpec, ...] = (
    KernelBackendSpec(
        name="torch",
        summary="plain torch operations, channels innermost, one matrix product for each source"
        " degree: the networks' default",
        factory=f"{_FOLDER}.plain:PlainTorch",
        operations=(
            *("convolution", "painn-message", "spherical-harmonics", "linear", "radial-basis"),
            *("neighbour-search", "edge-product", "so2-convolution", "pair-bias-attention"),
            *("invariant-point-attention", "steerable-convolution", "cube-convolution"),
            *("symmetric-contraction", "so2-message"),
        ),
    ),
    KernelBackendSpec(
        name="fused",
        summary="our own: unrolled sparse Clebsch-Gordan sums, gather and scatter fused;"
        " C on a CPU, Triton on a GPU",
        factory=f"{_FOLDER}.fused:Fused",
        operations=(
            *("convolution", "painn-message", "symmetric-contraction", "edge-product"),
            *("so2-convolution", "so2-message"),
        ),
    ),
    KernelBackendSpec(
        name="e3nn",
        summary="e3nn's operations, eager",
        factory=f"{_FOLDER}.e3nn:E3nn",
        needs=("e3nn",),
        operations=(*_OF_E3NN, "edge-product", "so2-convolution"),
    ),
    KernelBackendSpec(
        name="e3nn-compiled",
        summary="e3nn's operations through torch.compile",
        factory=f"{_FOLDER}.e3nn:E3nnCompiled",
        needs=("e3nn",),
        slow_to_build=True,
        operations=_OF_E3NN,
        max_derivatives=1,
    ),
    KernelBackendSpec(
        name="cuequivariance",
        summary="NVIDIA cuEquivariance: CUDA kernels on a GPU, its `naive` method on a CPU",
        factory=f"{_FOLDER}.cuequivariance:CuEquivariance",
        needs=("cuequivariance_torch",),
        install="pip install cuequivariance-torch, on a GPU 'equivbench[cue-cu13]' (or cue-cu12)",
        operations=("convolution", "spherical-harmonics", "symmetric-contraction"),
    ),
    KernelBackendSpec(
        name="openequivariance",
        summary="OpenEquivariance: just-in-time CUDA kernels",
        factory=f"{_FOLDER}.openequivariance:OpenEquivariance",
        needs=("openequivariance",),
        install="pip install openequivariance, with a CUDA toolkit",
        devices=("cuda",),
        operations=("convolution",),
    ),
    KernelBackendSpec(
        name="sphericart",
        summary="sphericart: spherical harmonics with analytic derivatives",
        factory=f"{_FOLDER}.sphericart:Sphericart",
        needs=("sphericart.torch",),
        install="pip install sphericart-torch",
        operations=("spherical-harmonics",),
    ),
    KernelBackendSpec(
        name="flashcart",
        summary="flashcart: Cartesian tensor products in Triton",
        factory=f"{_FOLDER}.flashcart:Flashcart",
        needs=("flashcart",),
        install="pip install flashcart, with a CUDA device",
        devices=("cuda",),
        operations=("convolution",),
    ),
)


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


def does_not_do(
    name: str, operation: str, needed: Iterable[str] = (), device: str | None = None
) -> str:
    """That the backend ``name`` does not do ``operation``, and which are declared to do it and all
    else that is ``needed``; on that kind of ``device`` (``cpu`` or ``cuda``), if one is named."""
    asked = {operation, *needed}
    specs = {each: entry.value for each, entry in KERNEL_BACKENDS.entries().items()}
    able = [each for each, spec in specs.items() if asked <= _declared(spec, device)]
    # Where it is the device alone that stands against it.
    elsewhere = name in specs and operation in specs[name].operations
    where = f" on a {_KINDS[device]}" if device is not None and elsewhere else ""
    advice = f"choose among {', '.join(able)}" if able else "none here is declared to do it"
    return f"{name} does not do {operation!r}{where}; {advice}"


def _declared(spec: KernelBackendSpec, device: str | None) -> set[str]:
    return set(spec.operations) if device is None else spec.operations_on(device)


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (
        ImportError,
        ValueError,
    ):  # a parent package that is not there, or that breaks as it is imported
        return False
