"""The fused operations on a CPU: generated C++ compiled into a shared library, once a machine, and
called with raw tensors. No torch headers, so that compiling takes seconds."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equivbench.environment import cache_dir, cxx_compiler
from equivbench.errors import FailedError
from equivbench.kernels import build_time
from equivbench.kernels.fused.coupling import EdgeOperation, couplings
from equivbench.kernels.fused.native_source import source
from equivbench.kernels.private_folder import is_private, private_folder

ALWAYS = ("-std=c++14", "-O3", "-ffp-contract=fast", "-fPIC", "-shared", "-x", "c++")
OPTIONAL = ("-march=native", "-fopenmp")
"""For this machine's vectors and for threads; a compiler that knows one of them not goes without
it."""
EDGES_A_THREAD = 64
"""Below so many edges for each, fewer threads: waking one costs as much as it saves."""


def no_compiler() -> str | None:
    """Why nothing can be compiled here and what to do about it; None if it can."""
    if cxx_compiler() is None:
        return "no C++ compiler: install g++ or clang++, or name one in CXX"
    return None


@lru_cache(maxsize=1)
def _target() -> tuple[tuple[str, ...], str]:
    """The flags that this compiler takes, and its predefined macros under them: its version and the
    machine's instructions."""
    flags: tuple[str, ...] = ()
    macros = ""
    for wanted in ((), *((flag,) for flag in OPTIONAL)):
        probe = subprocess.run(
            [str(cxx_compiler()), *flags, *wanted, "-x", "c++", "-dM", "-E", os.devnull],
            capture_output=True, encoding="utf-8", errors="replace", check=False,
        )  # fmt: skip
        if probe.returncode == 0:
            flags, macros = (*flags, *wanted), probe.stdout
    return flags, macros


@lru_cache(maxsize=64)
def library(text: str) -> ctypes.CDLL:
    """The C++ ``text`` as a loaded library, compiled where it does not lie in the cache folder yet.

    It is loaded from a folder that nobody else can write. Raises ``FailedError`` where there is no
    compiler, where it fails, and where the cache folder takes no library or is open to others.
    """
    if (problem := no_compiler()) is not None:
        raise FailedError(problem)
    flags, macros = _target()
    key = hashlib.sha256("\0".join([text, *ALWAYS, *flags, macros]).encode()).hexdigest()[:32]
    folder = cache_dir() / "kernels"
    try:
        path = private_folder(folder) / f"{key}.so"
        if path.exists() and is_private(path):
            # A broken file, such as one that a full disk cut short, is compiled again, and so is
            # one that others could have written.
            with contextlib.suppress(OSError):
                found = ctypes.CDLL(str(path))
                build_time.spare(_seconds_of(path))
                return found
        _compile(text, flags, path)
        return ctypes.CDLL(str(path))
    except OSError as error:
        advice = "name a folder that can be written to and run from in EQUIVBENCH_CACHE"
        raise FailedError(
            f"a fused kernel could not be kept in {folder}: {error}; {advice}"
        ) from error


def _compile(text: str, flags: tuple[str, ...], path: Path) -> None:
    start = time.perf_counter()
    # Renamed into place when whole: other processes may compile the same source at the same time.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        built = Path(folder) / path.name
        done = subprocess.run(
            [str(cxx_compiler()), *ALWAYS, *flags, "-o", str(built), "-"],
            input=text, capture_output=True, encoding="utf-8", errors="replace", check=False,
        )  # fmt: skip
        if done.returncode:
            raise FailedError(
                f"{cxx_compiler()} could not compile a fused kernel: {done.stderr.strip()[:2000]}"
            )
        taken = built.with_suffix(".seconds")
        taken.write_text(f"{time.perf_counter() - start:.3f}\n", encoding="utf-8")
        built.chmod(0o700)
        os.replace(taken, path.with_suffix(".seconds"))
        os.replace(built, path)


def _seconds_of(path: Path) -> float:
    """What compiling the library at ``path`` took; 0 where nobody wrote it down."""
    try:
        return float(path.with_suffix(".seconds").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0


def launcher(text: str, tensors: type[ctypes.Structure]) -> Any:
    """The function ``launch`` of the library that ``text`` compiles to: it takes a kind, three
    sizes, indices and ``tensors``."""
    launch = library(text).launch
    sizes = [ctypes.c_int64] * 3
    launch.argtypes = [ctypes.c_int, *sizes, ctypes.c_void_p, ctypes.POINTER(tensors)]
    return launch


class _Tensors(ctypes.Structure):
    """The struct of the same name in the C++ text."""

    _fields_ = tuple(
        (name, ctypes.c_void_p)
        for name in ("x", "y", "w", "g", "u_x", "u_y", "u_w", "out", "by_x", "by_y", "by_w")
    )


@lru_cache(maxsize=64)
def compiled(operation: EdgeOperation, dtype: torch.dtype) -> Any:
    """The function of the library for ``operation`` in ``dtype``."""
    real = "double" if dtype == torch.float64 else "float"
    return launcher(source(couplings(operation), real), _Tensors)


def results(
    operation: EdgeOperation, needs: Sequence[bool], x: Tensor, harmonics: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tensors for the derivatives by grad, x, harmonics and weights, empty where not needed."""
    shapes = ((x.shape[0], operation.target_size), x.shape, harmonics.shape, weights.shape)
    out, by_x, by_y, by_w = (
        x.new_empty(shape if needed else 0) for needed, shape in zip(needs, shapes, strict=True)
    )
    return out, by_x, by_y, by_w


def launch(
    operation: EdgeOperation,
    needs: Sequence[bool],
    grad: Tensor | None,
    tangents: Sequence[Tensor | None],
    x: Tensor,
    harmonics: Tensor,
    weights: Tensor,
    edge_index: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The operator of :mod:`equivbench.kernels.fused.edge_operator`."""
    made = results(operation, needs, x, harmonics, weights)
    given = (x, harmonics, weights, grad, *tangents)
    names = ("x", "y", "w", "g", "u_x", "u_y", "u_w")
    # Held in a variable until the call is over: the kernels read the rows of packed tensors.
    packed = {
        name: one.contiguous() for name, one in zip(names, given, strict=True) if one is not None
    }
    edges = edge_index.contiguous()
    wanted = {
        name: one
        for name, one, needed in zip(("out", "by_x", "by_y", "by_w"), made, needs, strict=True)
        if needed
    }
    if not wanted:
        return made
    tensors = _Tensors(**{name: one.data_ptr() for name, one in (packed | wanted).items()})
    threads = max(1, min(torch.get_num_threads(), edges.shape[1] // EDGES_A_THREAD))
    # The output, first derivatives, or either along tangents.
    kind = 2 if any(one is not None for one in tangents) else int(grad is not None)
    nodes = x.shape[0]
    problem = compiled(operation, x.dtype)(
        kind, nodes, edges.shape[1], threads, edges.data_ptr(), ctypes.byref(tensors)
    )
    raise_for(problem, nodes, edges.shape[1])
    return made


def raise_for(problem: int, nodes: int, edges: int) -> None:
    """Raise what the number that a library returned means; 0: nothing."""
    if problem == 1:
        raise MemoryError(f"no memory to group {edges} edges by centre")
    if problem == 2:
        raise IndexError(f"edge_index names a node that is not among the {nodes} of x")
