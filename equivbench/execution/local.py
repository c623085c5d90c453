"""Holds the contests of a plan on this machine, one after the other, and gathers what came of
them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from equivbench.errors import FailedError
from equivbench.execution.contest import ContestHolder, Result
from equivbench.execution.interrupt import Interrupt
from equivbench.execution.plan import Plan
from equivbench.execution.watching import Watcher


def hold(plan: Plan, watcher: Watcher) -> Result:
    """Train, time and record every job of ``plan``; a job that fails leaves the others alone.

    Raises :class:`FailedError` before training if the results folder cannot be written,
    :class:`UsageError` for what only a worker can see (an option the task does not have).
    """
    check_writable(plan.request.out)
    result = Result()
    with Interrupt() as interrupt:
        for contest in plan.contests:
            try:
                ContestHolder(contest, watcher, result, interrupt).hold(plan.request.extend)
            except KeyboardInterrupt:
                interrupt.asked = True
            finally:
                watcher.end()
            if interrupt.asked:
                result.interrupted = True
                break
    return result


def check_writable(folder: str, what: str = "results folder", option: str = "--out") -> None:
    """Raise :class:`FailedError` unless a file can be written in ``folder``, which is made if it is
    missing.

    ``what`` it is and the ``option`` that names another go into the message.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\n")
    except OSError as error:
        raise FailedError(
            f"the {what} {folder} cannot be written: {error.strerror}; name another with {option}"
        ) from error
