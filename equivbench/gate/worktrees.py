"""Revisions of a repository, checked out side by side in a temporary folder for as long as a
measurement takes."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import ClassVar

from equivbench.environment import git, has_changes
from equivbench.errors import FailedError, UsageError
from equivbench.request import Request, option, write_number

WORKER = "equivbench/gate/side.py"


@dataclass(frozen=True)
class InterleaveRequest(Request):
    """What to compare, and with ``--interleave`` what to measure and how long."""

    program: ClassVar[tuple[str, ...]] = ("check", "--interleave")

    baseline: str = option(
        MISSING,
        "Run records or samples to compare with (a file or a folder); with --interleave "
        "a git revision.",
        flag=None,
    )
    candidate: str = option(MISSING, "The records, samples or revision that are judged.", flag=None)
    allow_dirty: bool = option(False, "Accept uncommitted changes.")
    rounds: int = option(
        10,
        "With --interleave: number of fresh processes for each revision, 4 or more. Benchmarks "
        "that could not have shown a slow-down by 10% get as many again, up to three times.",
    )
    seconds: float = option(
        0.2,
        "With --interleave: seconds to measure each benchmark in each process.",
        write=write_number,
    )
    only: tuple[str, ...] = option(
        (),
        "With --interleave: measure only the benchmarks whose name matches this pattern (*, ?), "
        "such as 'list-pairs', 'convolution-*' or '* step'.",
    )


def repository(folder: Path) -> Path:
    """The root of the git repository around ``folder``; raises ``UsageError`` if there is none."""
    done = _git(folder, "rev-parse", "--show-toplevel")
    if done.returncode:
        said = " ".join(done.stderr.split()).removeprefix("fatal: ")
        if said.startswith("not a git repository"):
            raise UsageError(
                f"{folder} is in no git repository; give the command inside a checkout of "
                "equivbench"
            )
        raise UsageError(f"git finds no working tree around {folder}: {said}")
    return Path(done.stdout.strip())


def commit_named(root: Path, revision: str) -> str:
    """The commit that ``revision`` names; raises ``UsageError`` for an unknown one."""
    done = _git(
        root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"
    )
    if done.returncode:
        raise UsageError(
            f"{revision!r} is no revision of {root.name}; `git log --oneline` shows some"
        )
    return done.stdout.strip()


def commit_of(root: Path, revision: str) -> str:
    """The commit that ``revision`` names, with a worker that can measure it.

    Raises ``UsageError`` for an unknown revision and ``FailedError`` for one from before there was
    a gate.
    """
    commit = commit_named(root, revision)
    if _git(root, "cat-file", "-e", f"{commit}:{WORKER}").returncode:
        raise FailedError(
            f"revision {revision} has no {WORKER}, so it cannot be measured; choose a later one"
        )
    return commit


def subject_of(root: Path, commit: str) -> str:
    """The first line of what ``commit`` says of itself."""
    return _git(root, "log", "-1", "--format=%s", commit).stdout.strip()


def refuse_changes(root: Path, otherwise: str) -> None:
    """Raise ``UsageError`` if tracked files of the package differ from the last commit: they would
    not be measured. ``otherwise`` is what else can be done than to commit them."""
    if has_changes(root, untracked=False) is not False:
        raise UsageError(
            "the working tree has uncommitted changes, which would not be measured; "
            f"commit them, or {otherwise}"
        )


@contextlib.contextmanager
def checked_out(root: Path, commits: Mapping[str, str]) -> Iterator[dict[str, Path]]:
    """Worktrees of ``commits``, each in a folder of its name, removed at the end; raises
    ``FailedError`` if git cannot make them."""
    folder = Path(tempfile.mkdtemp(prefix="equivbench-check-"))
    trees = {name: folder / name for name in commits}
    try:
        for tree, commit in zip(trees.values(), commits.values(), strict=True):
            # No hook of the repository runs: a checkout is all that is wanted.
            no_hooks = ("-c", f"core.hooksPath={os.devnull}")
            done = _git(root, *no_hooks, "worktree", "add", "--detach", "-q", str(tree), commit)
            if done.returncode:
                raise FailedError(
                    f"git cannot check out {commit[:12]}: {' '.join(done.stderr.split())}"
                )
            _write_entry_points(tree)
        yield trees
    finally:
        removed = [
            _git(root, "worktree", "remove", "--force", str(tree)).returncode == 0
            for tree in trees.values()
        ]
        shutil.rmtree(folder, ignore_errors=True)
        if not all(removed):
            _git(root, "worktree", "prune")


def _write_entry_points(tree: Path) -> None:
    """Give ``tree`` the package metadata that says what this revision registers.

    It is imported from there by ``PYTHONPATH`` and not installed: without metadata of its own it
    would look for what the revision that is installed registers.
    """
    declared = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8")).get(
        "project", {}
    )
    lines: list[str] = []
    for group, points in declared.get("entry-points", {}).items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    metadata = tree / "equivbench.egg-info"
    metadata.mkdir()
    (metadata / "PKG-INFO").write_text(
        "Metadata-Version: 2.1\nName: equivbench\nVersion: 0\n", encoding="utf-8"
    )
    (metadata / "entry_points.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return git(folder, *arguments)
    except OSError as error:
        raise FailedError(f"cannot run git: {error.strerror or error}") from error
