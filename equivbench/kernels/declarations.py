"""The built-in kernel backends, as the registry lists them. Imports no torch."""

from __future__ import annotations

from equivbench.registry import KernelBackendSpec

_BACKENDS = "equivbench.kernels.backends"

BACKENDS: tuple[KernelBackendSpec, ...] = (
    KernelBackendSpec(
        name="torch",
        summary="plain torch operations, channels innermost, one matrix product for each source degree: the networks' default",
        factory=f"{_BACKENDS}.plain:PlainTorch",
    ),
    KernelBackendSpec(
        name="fused",
        summary="our own: unrolled sparse Clebsch-Gordan sums, gather and scatter fused; C on a CPU, Triton on a GPU",
        factory=f"{_BACKENDS}.fused:Fused",
    ),
    KernelBackendSpec(
        name="e3nn",
        summary="e3nn's operations, eager",
        factory=f"{_BACKENDS}.e3nn:E3nn",
        needs=("e3nn",),
    ),
    KernelBackendSpec(
        name="e3nn-compiled",
        summary="e3nn's operations through torch.compile",
        factory=f"{_BACKENDS}.e3nn:E3nnCompiled",
        needs=("e3nn",),
        slow_to_build=True,
    ),
    KernelBackendSpec(
        name="cuequivariance",
        summary="NVIDIA cuEquivariance: CUDA kernels on a GPU, its `naive` method on a CPU",
        factory=f"{_BACKENDS}.cuequivariance:CuEquivariance",
        needs=("cuequivariance_torch",),
        install="pip install cuequivariance-torch, on a GPU also cuequivariance-ops-torch-cu13",
    ),
    KernelBackendSpec(
        name="openequivariance",
        summary="OpenEquivariance: just-in-time CUDA kernels",
        factory=f"{_BACKENDS}.openequivariance:OpenEquivariance",
        needs=("openequivariance",),
        install="pip install openequivariance, with a CUDA toolkit",
        devices=("cuda",),
    ),
    KernelBackendSpec(
        name="sphericart",
        summary="sphericart: spherical harmonics with analytic derivatives",
        factory=f"{_BACKENDS}.sphericart:Sphericart",
        needs=("sphericart.torch",),
        install="pip install sphericart-torch",
    ),
    KernelBackendSpec(
        name="flashcart",
        summary="flashcart: Cartesian tensor products in Triton",
        factory=f"{_BACKENDS}.flashcart:Flashcart",
        needs=("flashcart",),
        install="pip install flashcart, with a CUDA device",
        devices=("cuda",),
    ),
)
