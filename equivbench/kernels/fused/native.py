"""Compiles generated C++ into a shared library, once a machine, and loads it: no torch headers, so
that it takes seconds."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import tempfile
import time
from functools import lru_cache
from pathlib import Path

from equivbench.environment import cache_dir, cxx_compiler
from equivbench.errors import FailedError

ALWAYS = ("-std=c++14", "-O3", "-ffp-contract=fast", "-fPIC", "-shared", "-x", "c++")
OPTIONAL = ("-march=native", "-fopenmp")
"""For this machine's vectors and for threads; a compiler that knows one of them not goes without
it."""


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
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if probe.returncode == 0:
            flags, macros = (*flags, *wanted), probe.stdout
    return flags, macros


@lru_cache(maxsize=64)
def library(source: str) -> tuple[ctypes.CDLL, float]:
    """``source`` as a loaded library, and the seconds that compiling took (0 where it lay in the
    cache folder).

    Raises ``FailedError`` where there is no compiler, where it fails, and where the cache folder
    takes no library.
    """
    if (problem := no_compiler()) is not None:
        raise FailedError(problem)
    flags, macros = _target()
    key = hashlib.sha256("\0".join([source, *ALWAYS, *flags, macros]).encode()).hexdigest()[:32]
    path = cache_dir() / "kernels" / f"{key}.so"
    start = time.perf_counter()
    try:
        if path.exists() and (found := _loaded(path)) is not None:
            return found, 0.0
        _compile(source, flags, path)
        return ctypes.CDLL(str(path)), time.perf_counter() - start
    except OSError as error:
        advice = "name a folder that can be written to and run from in EQUIVBENCH_CACHE"
        raise FailedError(
            f"a fused kernel could not be kept in {path.parent}: {error}; {advice}"
        ) from error


def _loaded(path: Path) -> ctypes.CDLL | None:
    """The library at ``path``; None for a broken file, such as one that a full disk cut short."""
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        return None


def _compile(source: str, flags: tuple[str, ...], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Renamed into place when whole: other processes may compile the same source at the same time.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        built = Path(folder) / path.name
        done = subprocess.run(
            [str(cxx_compiler()), *ALWAYS, *flags, "-o", str(built), "-"],
            input=source, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise FailedError(
                f"{cxx_compiler()} could not compile a fused kernel: {done.stderr.strip()[:2000]}"
            )
        os.replace(built, path)
