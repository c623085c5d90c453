"""An ordinary command of equivbench in a process of its own, which gives its memory back when it
ends."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from equivbench.errors import FailedError
from equivbench.execution.executors import Callback
from equivbench.execution.interrupt import Interrupt

_PATIENCE = 10.0
"""Seconds a command that is told to stop gets before it is killed; an analysis keeps nothing on its
way."""


def call(words: Sequence[str], callback: Callback, tree: Path | None = None) -> None:
    """Run ``equivbench WORDS``; raises :class:`FailedError` with its last line where it fails.

    With ``tree`` it runs in that folder, which holds the checkout whose package it imports. It
    has a session of its own, so that Ctrl-C in a terminal reaches this process alone, which ends
    it.
    """
    command = [sys.executable, "-m", "equivbench", *words]
    with Interrupt() as interrupt, interrupt.at_once():
        child = subprocess.Popen(
            command,
            cwd=tree,
            env=None if tree is None else _importing_from(tree),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        try:
            _, said = child.communicate()
        except KeyboardInterrupt:
            child.terminate()
            try:
                child.communicate(timeout=_PATIENCE)
            except subprocess.TimeoutExpired:
                child.kill()
                child.communicate()
            raise
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if child.returncode:
        # After a defect the last line asks to report the lines above it, which are not shown here:
        # the one before says what.
        told = [line for line in lines if not line.endswith("with the lines above")]
        why = told[-1].removeprefix("error: ") if told else f"it ended with {child.returncode}"
        raise FailedError(f"`{shlex.join(['equivbench', *words])}` failed: {why}")
    for line in lines:
        if line.startswith("warning: "):
            callback.note(line.removeprefix("warning: "))


def _importing_from(tree: Path) -> dict[str, str]:
    """This process's environment with ``tree`` before all else that is imported from."""
    further = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(tree), further]))}


def path_from_here(path: Path) -> str:
    """``path`` from the current folder where it lies below it, so that a recorded command names no
    machine's folders."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
