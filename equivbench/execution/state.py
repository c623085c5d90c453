"""What the cache keeps of a run so that it can be resumed: which run it is, its checkpoints, and
which records it has."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from equivbench.budget import Budget
from equivbench.errors import FailedError
from equivbench.execution.chosen_kernels import check_operations
from equivbench.execution.identity import state_folder, unit_digest
from equivbench.execution.plan import Contest, Machine, RunPlan
from equivbench.records.files import read_bounded, write_atomically
from equivbench.records.schema import ENDED, RunRecord
from equivbench.records.store import decode_record, read_record
from equivbench.registry import MODELS, PAIRS
from equivbench.request import DEFAULT_KERNELS
from equivbench.training.job import Job

STATE_FILE = "run.json"
LOG_FILE = "worker.log"
_LOCK_SECONDS = 30.0
"""How long to wait for a worker of an orchestrator that was killed: it still saves at the end of
its slice."""


class RunState(msgspec.Struct, kw_only=True):
    """The identity of the run in a state folder, and its records by budget (a prolonged run has
    two)."""

    run_id: str
    created: str
    contest: str = ""
    """The one that it began in."""
    records: dict[str, str] = {}


def on_machines(plan: RunPlan, machines: Sequence[Machine]) -> RunPlan:
    """``plan`` with all that the first of ``machines``, which are of one kind, decides: device,
    threads, kernel backend, state folders.

    The jobs of a contest that is to be resumed take over the id, the date and the contest of what
    is in their folders.
    """
    contests = []
    for contest in plan.contests:
        here = on_machine(contest, machines[0])
        begun = [read_state(job.state_dir) for job in here.jobs if job.request.resume]
        state = next((each for each in begun if each is not None), None)
        contests.append(here if state is None else renamed(here, state))
    return replace(plan, contests=tuple(contests), machines=tuple(machines))


def on_machine(contest: Contest, machine: Machine, unit: str | None = None) -> Contest:
    """``contest`` with what ``machine`` decides of its jobs; ``unit`` is its digest, if that is
    known. Raises ``UsageError`` where the kernel backend that they ask for does not do there what
    their networks take."""
    name = contest.jobs[0].request.kernels
    if name is not None and name != DEFAULT_KERNELS:
        pair = PAIRS.get(contest.pair)
        check_operations(name, pair, [pair.arm(job.arm) for job in contest.jobs], machine.device)
    unit, kind = unit or unit_digest(contest.jobs), machine.kind
    return replace(contest, jobs=tuple(_job(job, machine, unit, kind) for job in contest.jobs))


def renamed(contest: Contest, like: RunState | Job) -> Contest:
    """``contest`` under the names of the one that ``like`` belongs to."""
    names = {"run_id": like.run_id, "created": like.created}
    jobs = [
        msgspec.structs.replace(job, **names, contest=like.contest or job.contest)
        for job in contest.jobs
    ]
    return replace(contest, jobs=tuple(jobs))


def read_state(folder: str | Path) -> RunState | None:
    """The run in a state folder, or None if there is none that can be read."""
    try:
        return msgspec.json.decode(Path(folder, STATE_FILE).read_bytes(), type=RunState)
    except (OSError, msgspec.DecodeError):
        return None


def finished_record(job: Job, contest: str | None = None) -> Path | None:
    """The record of ``job`` at its budget, on this kind of machine, where a run of it came to its
    end and the file is still there: that which this cache remembers, else any in the results folder
    that is of its unit. Of one ``contest`` alone, if that is named."""
    state = read_state(job.state_dir)
    if state is not None and job.budget in state.records:
        path = Path(state.records[job.budget])
        with contextlib.suppress(FailedError):
            record = read_record(path)
            if record.status in ENDED and contest in (None, record.contest):
                return path
    kind = Machine(job.device, job.threads, further=job.replicas).kind
    found = [
        path
        for path, record in records_of_unit(job.request.out, job.unit, job, kind)
        if contest in (None, record.contest)
    ]
    return found[0] if found else None


def records_of_unit(
    results: str | Path, unit: str, job: Job, machine_key: str = "*"
) -> Iterator[tuple[Path, RunRecord]]:
    """The valid records, of runs that came to their end, of ``unit`` and of the arm and the budget
    of ``job``, in the order of their names."""
    named = f'"unit": "{unit}"'.encode()
    limit = Budget.parse(job.budget).limit
    for path in sorted(Path(results).glob(f"{machine_key}/{job.pair}/{job.arm}/*.json")):
        # Most files are of another unit, which is told without reading them as records.
        with contextlib.suppress(FailedError):
            data = read_bounded(path, follow=False)
            if named in data:
                record = decode_record(data, str(path))
                if record.status in ENDED and record.budget.limit == limit:
                    yield path, record


def open_state(job: Job) -> None:
    """Make the job's state folder: emptied for a fresh run, kept for one that is resumed.

    The worker's log stays: the worker that is being started writes to it.

    Raises ``FailedError`` where the cache cannot be written.
    """
    folder = Path(job.state_dir)
    if job.request.resume and read_state(folder) is not None:
        # What a worker left half written when it was killed; the lock says that none writes now.
        for half_written in folder.glob("*.partial"):
            half_written.unlink(missing_ok=True)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for entry in folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != LOG_FILE:
                entry.unlink(missing_ok=True)
    except OSError as error:
        raise FailedError(
            f"cannot make the state folder {folder}: {error.strerror}; "
            "set EQUIVBENCH_CACHE to another"
        ) from error
    _write(job, RunState(run_id=job.run_id, created=job.created, contest=job.contest))


def remember_record(job: Job, path: Path) -> None:
    """Note that ``job`` has its record at ``path``."""
    state = read_state(job.state_dir) or RunState(
        run_id=job.run_id, created=job.created, contest=job.contest
    )
    state.records[job.budget] = str(path.resolve())
    _write(job, state)


@contextlib.contextmanager
def locked(job: Job) -> Iterator[None]:
    """Hold the job's state folder for this process.

    The worker takes it, not the orchestrator: a worker whose orchestrator was killed still writes
    its last checkpoint, and nobody else may write there meanwhile. The operating system gives the
    lock back when the worker ends, however it ends.

    Raises ``FailedError`` where another run of the same job keeps it, and where the cache cannot be
    written.
    """
    import filelock  # by the worker alone: no command waits for this import

    path = Path(f"{job.state_dir}.lock")
    lock = filelock.FileLock(path, timeout=_LOCK_SECONDS, poll_interval=0.2)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise FailedError(
            f"another process is running {job.title} with these settings; wait for it to end"
        ) from None
    except OSError as error:
        raise FailedError(
            f"cannot write {path}: {error.strerror}; "
            "set EQUIVBENCH_CACHE to a folder that can be written"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _job(job: Job, machine: Machine, unit: str, kind: str) -> Job:
    takes_kernels = MODELS.get(PAIRS.get(job.pair).arm(job.arm).model).kernels
    kernels = job.request.kernels if takes_kernels else None
    job = msgspec.structs.replace(
        job,
        unit=unit,
        device=machine.device,
        threads=machine.threads,
        kernels=None if kernels == DEFAULT_KERNELS else kernels,
        devices=machine.names,
        cores=list(machine.cpus),
        replicas=machine.further,
    )
    return msgspec.structs.replace(job, state_dir=str(state_folder(job, kind)))


def _write(job: Job, state: RunState) -> None:
    write_atomically(Path(job.state_dir) / STATE_FILE, msgspec.json.encode(state))
