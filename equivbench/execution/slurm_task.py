"""A task of a Slurm array (``python -m equivbench.execution.slurm_task UNIT_FILE``): one unit of a
plan, put back into the queue where its time was up before it was done."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from equivbench.errors import FailedError, InterruptedRunError
from equivbench.execution.interrupt import Interrupt
from equivbench.execution.slurm import WARNED_SECONDS, ask
from equivbench.execution.unit import run_file

_SHORT_STARTS = 3
"""How often a task may be put back that had hardly begun."""
_STARTS = 100
"""How often any may: what does not fit a time limit would go round for ever."""

_ASK_SECONDS = 60.0
"""For how long Slurm is asked to put a task back: half of what the warning leaves of its time."""
_AGAIN_SECONDS = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the unit in the file that is named, and give its exit code.

    Slurm says with SIGUSR1 that the time limit is near: the state is saved then and the task goes
    back into the queue, from where it goes on. After SIGTERM Slurm itself decides: it requeues what
    it preempts and ends what the user cancels.
    """
    (path,) = sys.argv[1:] if arguments is None else arguments
    began, interrupt = time.monotonic(), Interrupt()
    code = run_file(Path(path), owner(), interrupt, waits=False)
    if code != InterruptedRunError.exit_code or not interrupt.time_is_up:
        return code
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0") or 0)
    short = time.monotonic() - began < WARNED_SECONDS
    if restarts >= (_SHORT_STARTS if short else _STARTS):
        sys.stderr.write(
            f"error: the time was up {restarts + 1} times before the contest was done; give it "
            "more at once with --executor-option time=\n"
        )
        return FailedError.exit_code
    requeue()
    return code


def owner() -> str:
    """The task, as the owner of a lease; the same after it was requeued."""
    return f"slurm:{_task()}"


def requeue() -> None:
    """Put this task back into the queue; what is left of it here is ended.

    A controller that is busy and does not answer is asked again: the state is saved, and the
    warning came early enough. If it never does, that is one sentence on stderr.
    """
    began = time.monotonic()
    while (done := ask(["scontrol", "requeue", _task()])).returncode:
        if time.monotonic() - began > _ASK_SECONDS:
            said = " ".join(done.stderr.split())
            sys.stderr.write(
                f"error: the time is up and scontrol does not requeue {_task()}: {said}\n"
            )
            return
        time.sleep(_AGAIN_SECONDS)


def _task() -> str:
    """As Slurm names it: ``123_4``."""
    job, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID", "") for name in ("JOB", "TASK"))
    return f"{job}_{task}" if job else os.environ.get("SLURM_JOB_ID", "")


if __name__ == "__main__":
    sys.exit(main())
