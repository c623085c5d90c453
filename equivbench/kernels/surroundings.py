"""What a kernel must leave as it found it: settings of the process that make it faster or others
slower, the clock, and the code that judges it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from equivbench.kernels.checking import WrongKernelError


class ProcessSetting(NamedTuple):
    """A setting of the process."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], Any]


def _leave(length: Callable[[], int], at: Callable[[int], Any]) -> Callable[[int], None]:
    """Leaves the modes above so many."""

    def write(wanted: int) -> None:
        while length() > wanted:
            at(length() - 1).__exit__(None, None, None)

    return write


_CUDNN, _CUDA = torch.backends.cudnn, torch.backends.cuda.matmul
SETTINGS = (
    ProcessSetting("the number of threads", torch.get_num_threads, torch.set_num_threads),
    ProcessSetting("the default dtype", torch.get_default_dtype, torch.set_default_dtype),
    ProcessSetting("whether gradients are recorded", torch.is_grad_enabled, torch.set_grad_enabled),
    ProcessSetting(
        "the precision of matrix products",
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    ProcessSetting(
        "TF32 in matrix products",
        lambda: _CUDA.allow_tf32,
        lambda value: setattr(_CUDA, "allow_tf32", value),
    ),
    ProcessSetting(
        "TF32 in convolutions",
        lambda: _CUDNN.allow_tf32,
        lambda value: setattr(_CUDNN, "allow_tf32", value),
    ),
    ProcessSetting(
        "whether algorithms are deterministic",
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    ProcessSetting(
        "the number of torch function modes",
        torch._C._len_torch_function_stack,
        _leave(torch._C._len_torch_function_stack, torch._C._get_function_stack_at),
    ),
    ProcessSetting(
        "the number of torch dispatch modes",
        torch._C._len_torch_dispatch_stack,
        _leave(torch._C._len_torch_dispatch_stack, torch._C._get_dispatch_stack_at),
    ),
)


def attributes(owner: Any, *names: str) -> list[ProcessSetting]:
    """The attributes ``names`` of a module or class, as they are now, as settings."""
    title = getattr(owner, "__name__", str(owner))

    def setting(name: str) -> ProcessSetting:
        return ProcessSetting(
            f"{title}.{name}",
            lambda: getattr(owner, name),
            lambda value: setattr(owner, name, value),
        )

    return [setting(name) for name in names]


@contextmanager
def unchanged(settings: Iterable[ProcessSetting]) -> Iterator[None]:
    """Raise ``WrongKernelError`` where the block changes one of ``settings``; it is put back in any
    case. An error of another kind goes first."""
    before = [(one, one.read()) for one in settings]
    try:
        yield
    except WrongKernelError as error:
        _refuse(_put_back(before), error)
        raise
    except BaseException:
        _put_back(before)
        raise
    _refuse(_put_back(before))


def _put_back(before: Iterable[tuple[ProcessSetting, Any]]) -> list[str]:
    """In words, the settings that have changed."""
    changed = []
    for one, value in before:
        now = one.read()
        # Functions by identity: what replaces one may well say that it is equal.
        if now is not value and (callable(value) or now != value):
            told = "" if callable(value) else f" (from {value} to {now})"
            changed.append(one.name + told)
            one.write(value)
    return changed


def _refuse(changed: Sequence[str], error: WrongKernelError | None = None) -> None:
    if changed:
        raise WrongKernelError(f"it changes {', '.join(changed)}") from error
