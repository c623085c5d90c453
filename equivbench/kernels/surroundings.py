"""What a kernel must leave as it found it: settings of the process that make it faster or others
slower, the clock, and the code that judges it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from equivbench.kernels.checking import WrongKernelError
from equivbench.kernels.process_settings import Settings


class ProcessSetting(NamedTuple):
    """A thing of the process that can be read and put back."""

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
FURTHER = (
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
"""Beside the settings that every foreign model is held to."""


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
def unchanged(others: Iterable[ProcessSetting]) -> Iterator[None]:
    """Raise ``WrongKernelError`` where the block changes one of the process's :class:`Settings` or
    of ``others``; it is put back in any case. An error of another kind goes first."""
    settings, before = Settings.now(), [(one, one.read()) for one in others]

    def put_back() -> list[str]:
        # The precision of matrix products takes their TF32 with it.
        return [*settings.put_back(), *_put_back(before)]

    try:
        yield
    except WrongKernelError as error:
        _refuse(put_back(), error)
        raise
    except BaseException:
        put_back()
        raise
    _refuse(put_back())


def _put_back(before: Iterable[tuple[ProcessSetting, Any]]) -> list[str]:
    """In words, what has changed."""
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
