"""Whether the kernel backend that a run asks for (``--kernels``) does what its networks take from
one, told from what both are declared to."""

from __future__ import annotations

from collections.abc import Sequence

from equivbench.errors import UsageError
from equivbench.kernels.backends import does_not_do
from equivbench.registry import KERNEL_BACKENDS, MODELS
from equivbench.request import Forces
from equivbench.specs import ArmSpec, PairSpec


def check_kernels(
    name: str, pair: PairSpec, arms: Sequence[ArmSpec], forces: Forces | None, device: str
) -> None:
    """Raise ``UsageError`` unless some of ``arms`` take their operations from a backend, and the
    one called ``name`` does what these are declared to take, for such ``forces`` and on that kind
    of ``device`` (``auto``: on some kind) too."""
    if not any(MODELS.get(arm.model).kernels for arm in arms):
        raise UsageError(
            f"--kernels {name}: no chosen arm of {pair.key} takes its operations "
            "from a kernel backend; leave the option out or choose another pair"
        )
    backend = KERNEL_BACKENDS.get(name)
    if forces == "conservative" and backend.max_derivatives < 2:
        raise UsageError(
            f"--kernels {name}: {name} has no second derivatives, which training on conservative "
            "forces takes; choose another backend, or --forces direct"
        )
    check_operations(name, pair, arms, device)


def check_operations(name: str, pair: PairSpec, arms: Sequence[ArmSpec], device: str) -> None:
    """Raise ``UsageError`` where the backend called ``name`` is not declared to do, on that kind of
    ``device`` (``auto``: on any), what the networks of ``arms`` are declared to take from one."""
    backend, kind = KERNEL_BACKENDS.get(name), device.partition(":")[0]
    # That it is for no such device at all is said by whoever knows the machine.
    known = kind if kind in backend.devices else None
    done = set(backend.operations) if known is None else backend.operations_on(known)
    for spec in (MODELS.get(arm.model) for arm in arms):
        lacking = [each for each in spec.operations if spec.kernels and each not in done]
        if backend.operations and lacking:
            raise UsageError(
                f"--kernels {name}: {spec.name} of {pair.key} takes {lacking[0]!r} from a kernel "
                f"backend, and {does_not_do(name, lacking[0], spec.operations, known)}"
            )
