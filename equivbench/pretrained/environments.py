"""Environments of their own for networks whose packages may collide with those of equivbench: made
with venv and pip under a partial name, renamed when whole, and kept in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import secrets
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

from equivbench.environment import cache_dir, package_versions
from equivbench.errors import FailedError
from equivbench.kernels.private_folder import private_folder
from equivbench.pretrained.networks import Family
from equivbench.pretrained.processes import end_group
from equivbench.records.reasons import plain_reason

SHARED = ("torch", "numpy", "ase", "e3nn", "torch-geometric")
"""Packages that are seldom installed again, so that another version of them makes another
environment."""
_INSTALL_SECONDS = 1800.0
_WAIT_SECONDS = 3600.0
"""For another process that makes the same environment."""
_PARTIAL = ".partial-"


def ready_python(family: Family, said: Callable[[str], None] = lambda text: None) -> Path:
    """The Python of the environment of ``family``, which is made first where it is not there yet;
    ``said`` is told so.

    Of several processes one makes it and the others wait. One that was killed on the way leaves a
    folder of a partial name, which the next one removes. Raises ``FailedError`` where pip fails or
    the disk refuses; nothing is left behind then.
    """
    try:
        folder = environment_folder(family)
        if _python(folder).exists():
            return _python(folder)
        with _alone(folder, said):
            _remove_partial(folder)
            if not _python(folder).exists():
                said(f"installing {', '.join(family.requirements)}")
                _make(family, folder)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FailedError(
            f"the environment of {family.name} cannot be made: {reason}; check "
            f"the free space and the permissions of {cache_dir()}"
        ) from error
    return _python(folder)


def environment_folder(family: Family) -> Path:
    """Where the environment of ``family`` is or would be: named by what is installed, this Python,
    and the packages that it shares with equivbench.

    Its programs run with the user's rights, so it is in a folder that nobody else can write
    (:func:`equivbench.kernels.private_folder.private_folder`). Raises what that raises.
    """
    made_of = {
        "requirements": family.requirements,
        "python": [platform.python_implementation(), platform.python_version(), sys.prefix],
        "shared": package_versions(SHARED),
    }
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
    return private_folder(cache_dir() / "environments") / f"{family.name}-{digest}"


def is_made(family: Family) -> bool:
    """Whether the environment of ``family`` is there."""
    try:
        return _python(environment_folder(family)).exists()
    except (OSError, FailedError):
        return False


def _python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


@contextlib.contextmanager
def _alone(folder: Path, said: Callable[[str], None]) -> Iterator[None]:
    lock = filelock.FileLock(folder.parent / f".{folder.name}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        said("another process is making its environment")
        try:
            lock.acquire(timeout=_WAIT_SECONDS)
        except filelock.Timeout:
            raise FailedError(
                f"another process has been making {folder.name} for {_WAIT_SECONDS / 60:.0f} "
                "minutes; end it and try again"
            ) from None
    try:
        yield
    finally:
        lock.release()


def _remove_partial(folder: Path) -> None:
    """Remove what processes left that were killed; the caller is alone with ``folder``."""
    for left in folder.parent.glob(f".{folder.name}{_PARTIAL}*"):
        shutil.rmtree(left, ignore_errors=True)


def _make(family: Family, folder: Path) -> None:
    partial = folder.parent / f".{folder.name}{_PARTIAL}{secrets.token_hex(4)}"
    try:
        # This process's own pip installs into it, which saves the seconds of a second pip. It is
        # looked for by its metadata: looking for the module would have setuptools take its
        # distutils out of this process, and torch could compile nothing more.
        own_pip = any(importlib.metadata.distributions(name="pip"))
        venv.EnvBuilder(with_pip=not own_pip, symlinks=os.name != "nt").create(partial)
        python = _python(partial)
        _share(partial)
        pip = [sys.executable, "-m", "pip", "--python", str(python)]
        _install(family, pip if own_pip else [str(python), "-m", "pip"])
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _share(partial: Path) -> None:
    """Let the environment see the packages of this one, behind its own: pip installs what is
    missing or of another version."""
    own = {"base": str(partial), "platbase": str(partial)}
    places = sysconfig.get_paths(vars=own)
    shared = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    lines = "".join(f"{each}\n" for each in shared)
    Path(places["purelib"], "shared-with-equivbench.pth").write_text(lines, encoding="utf-8")


def _install(family: Family, pip: list[str]) -> None:
    """Run pip; raises ``FailedError`` with the last thing that it complains about."""
    command = [
        *pip,
        "--disable-pip-version-check",
        "--no-input",
        "--retries=2",
        "install",
        "--quiet",
        "--no-warn-script-location",
        *family.requirements,
    ]
    # PYTHONPATH would show pip packages that the environment does not see.
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    installing = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**clean, "PYTHONNOUSERSITE": "1", "LC_ALL": "C.UTF-8"},
        start_new_session=True,
    )
    try:
        _, errors = installing.communicate(timeout=_INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise FailedError(
            f"the environment of {family.name} was not made within "
            f"{_INSTALL_SECONDS / 60:.0f} minutes; look at the network connection and try again"
        ) from None
    finally:
        end_group(installing)
    if installing.returncode:
        raise FailedError(
            f"the environment of {family.name} cannot be made, for pip says: "
            f"{_complaint(errors.decode(errors='replace'))}; it takes a network connection to the "
            "package index, once"
        )


def _complaint(said: str) -> str:
    """The last line of an error in what pip said, or the last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return plain_reason((errors or lines or ["nothing"])[-1], 300).rstrip(".")
