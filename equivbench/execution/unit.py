"""One unit of a plan, run where this process is: what every executor calls in the end, in this
process or as ``python -m equivbench.execution.unit UNIT_FILE`` in a job of a cluster."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec

from equivbench.counted import counted
from equivbench.errors import EquivbenchError, FailedError, InterruptedRunError, UsageError
from equivbench.execution.contest import ContestRun
from equivbench.execution.executors import Callback, KeptRecord, RunResult
from equivbench.execution.identity import unit_digest
from equivbench.execution.interrupt import Interrupt
from equivbench.execution.leases import HeldLease, local_owner
from equivbench.execution.plan import Machine, machines_of
from equivbench.execution.planned import Ended, PlanFolder, Unit
from equivbench.execution.state import finished_record, on_machine, records_of_unit
from equivbench.execution.unbuilt import unbuilt_record
from equivbench.records.schema import ENDED
from equivbench.registry import PAIRS
from equivbench.training.job import Job, Progress

LOOK_AGAIN_SECONDS = 1.0
"""How often a unit that somebody else is at work on is asked for again."""


def run_unit(
    unit: Unit,
    folder: PlanFolder,
    machine: Machine,
    callback: Callback,
    result: RunResult,
    interrupt: Interrupt,
    *,
    beside: int = 0,
    anywhere: bool = False,
) -> bool:
    """Run ``unit`` on ``machine``, or go on with it; False where somebody else is at work on it,
    from the start or by now.

    Arms that are finished on this kind of machine are not repeated; with ``anywhere`` neither is a
    unit that is finished on another kind. Records, failures and notes go to ``result``, and
    whatever happens is said in the plan's ``folder``. ``beside`` other contests may run at the same
    time on further devices of this machine.

    Raises ``FailedError`` where the plan's folder cannot be written, ``UsageError`` for what is
    wrong for every arm, ``KeyboardInterrupt`` where ``interrupt`` was asked for a second time.
    """
    lease = folder.leases(unit.digest).take(machine_key=machine.kind, devices=machine.names)
    if lease is None:
        return False
    try:
        unit = folder.joined(unit)
        if anywhere and _finished_elsewhere(unit, folder, machine, result):
            return True
        return _run(unit, folder, machine, callback, result, interrupt, beside, lease)
    finally:
        lease.release()


def _run(
    unit: Unit,
    folder: PlanFolder,
    machine: Machine,
    callback: Callback,
    result: RunResult,
    interrupt: Interrupt,
    beside: int,
    lease: HeldLease,
) -> bool:
    """Whether it was still this process's own at the end."""
    own = RunResult(notes=result.notes)
    finished = partial(finished_record, contest=unit.own)
    extend = unit.contest.jobs[0].request.extend
    contest = on_machine(unit.contest, machine, unit.digest)
    begun = None
    if extend is not None or any(finished(job) is None for job in contest.jobs):
        begun, contest, said = folder.begin(unit, machine, beside)
        finished = partial(finished_record, contest=begun.own)
        if said is not None:
            result.notes.append(said)
            callback.note(said)
    ended: Ended = "interrupted"
    run = ContestRun(contest, callback, own, interrupt, finished, lease)
    try:
        run.run(extend)
        arms = {each.record.arm for each in own.kept if each.record.status in ENDED}
        if own.failures:
            ended = "failed"
        elif arms == {job.arm for job in contest.jobs}:
            ended = "completed"
    except KeyboardInterrupt:
        # One that lost its lease while it was loading ends so too.
        if not run.abandoned:
            raise
    except Exception as error:
        ended = "failed"
        own.failures.append(str(error))
        raise
    finally:
        if not run.abandoned:
            if begun is not None:
                # The records are what counts: a disk that is full takes none of them back.
                with contextlib.suppress(FailedError):
                    folder.end(begun, ended, own.failures)
            result.add(own)
    return not run.abandoned


def _finished_elsewhere(
    unit: Unit, folder: PlanFolder, machine: Machine, result: RunResult
) -> bool:
    """Keep the records of a unit that is finished on another kind of machine; whether it is."""
    kinds = folder.finished_on(unit)
    if not kinds or machine.kind in kinds:
        return False
    for job in unit.contest.jobs:
        for path, record in records_of_unit(folder.results, unit.digest, job, kinds[0]):
            if unit.own in (None, record.contest):
                result.kept.append(KeptRecord(record, path, None, reused=True))
                break
    return True


def record_unbuilt(result: RunResult, out: str | Path) -> None:
    """Write the records of runs that failed before their arm was built, now that those of others
    may say what it is. What was told to stop has not failed."""
    for job, why in [] if result.interrupted else result.unbuilt:
        record = unbuilt_record(job, why, [kept.record for kept in result.kept])
        if record is not None:
            result.keep_failed(record, str(out))


def read_unit(path: Path) -> Unit:
    """The unit in the file ``path`` of a plan's folder, as this process would run it: what it needs
    is imported, and its results go to the folder that the plan lies in.

    Raises ``FailedError`` where there is none, or where code or data are no longer those that it
    was planned with.
    """
    results = path.absolute().parent.parent
    unit = PlanFolder(results).read(path.stem)
    if unit is None:
        raise FailedError(f"{path} is no unit of a plan; `equivbench run` writes them")
    for module in unit.modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UsageError(
                f"cannot import {module!r}, which registers what {unit.title} needs: {error}"
            ) from error
    if unit.pair is not None and unit.pair.key not in PAIRS.entries():
        PAIRS.add(unit.pair)
    asked = unit.contest.jobs[0].request
    device = asked.device if asked.devices is None else asked.devices[0].partition(":")[0]
    here = replace(asked, out=str(results), devices=None, device=device)
    jobs = tuple(msgspec.structs.replace(job, request=here) for job in unit.contest.jobs)
    if unit_digest(unit.contest.jobs) != unit.digest:
        raise FailedError(
            f"{unit.title} was planned with another version of the code or of the data; "
            "plan it again"
        )
    return msgspec.structs.replace(unit, contest=replace(unit.contest, jobs=jobs))


class _Log(Callback):
    """A line on stderr for what a log should say."""

    def trained(self, job: Job, progress: Progress) -> None:
        """A line when an arm has spent its budget."""
        how = (
            f"diverged: {progress.diverged}"
            if progress.diverged
            else counted(progress.step, "step")
        )
        self._say(f"{job.title}: {how}")

    def note(self, text: str) -> None:
        """A line for a note."""
        self._say(f"note: {text}")

    def _say(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the unit that the command line names, and give the exit code: 0 it is finished, 3 it or
    an arm of it failed, 130 it was stopped and its state is saved; 2 for what makes no sense.

    Where somebody else is at work on it, this waits for it to be finished or left.
    """
    parser = argparse.ArgumentParser(
        prog="python -m equivbench.execution.unit",
        description="Run one unit of a plan on what this process was allotted.",
    )
    parser.add_argument("unit", type=Path, help="its file, RESULTS/.plan/DIGEST.json")
    parser.add_argument(
        "--owner",
        default="",
        help="who works on it, such as slurm:123_4; one that is restarted under the same name goes "
        "on at once",
    )
    asked = parser.parse_args(arguments)
    return run_file(asked.unit, asked.owner or local_owner(), Interrupt())


def run_file(path: Path, owner: str, interrupt: Interrupt, *, waits: bool = True) -> int:
    """Run the unit in the file ``path`` as ``owner``, and give the exit code of :func:`main`; what
    went wrong is a sentence on stderr. Without ``waits`` it is an error that somebody else is at
    work on it."""
    try:
        run_unit_of(path, owner, interrupt, waits=waits)
    except EquivbenchError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return InterruptedRunError.exit_code
    return 0


def run_unit_of(path: Path, owner: str, interrupt: Interrupt, *, waits: bool = True) -> None:
    """The same, which raises what went wrong: ``FailedError`` where an arm failed,
    ``InterruptedRunError`` where it was stopped, ``UsageError`` for what is wrong for every arm."""
    unit = read_unit(path)
    request = unit.contest.jobs[0].request
    machine, result = machines_of(request)[0], RunResult()
    folder = PlanFolder(request.out, owner)
    with interrupt:
        while not run_unit(unit, folder, machine, _Log(), result, interrupt, anywhere=True):
            if interrupt.asked:
                break
            if not waits:
                raise FailedError(
                    f"{unit.title}: somebody else is at work on it, and this would wait in vain"
                )
            time.sleep(LOOK_AGAIN_SECONDS)
            unit = read_unit(path)
        ended = {each.record.arm for each in result.kept if each.record.status in ENDED}
        result.interrupted = interrupt.asked and len(ended) < len(unit.contest.jobs)
    record_unbuilt(result, request.out)
    if result.failures:
        raise FailedError("; ".join(result.failures))
    if result.interrupted:
        raise InterruptedRunError(f"{unit.title} was interrupted; its state is saved")


if __name__ == "__main__":
    sys.exit(main())
