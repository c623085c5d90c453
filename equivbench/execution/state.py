"""What the cache keeps of a run so that it can be resumed: which run it is, its checkpoints, and
which records it has."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import msgspec

from equivbench.environment import cache_dir
from equivbench.errors import FailedError
from equivbench.execution.plan import Machine, RunPlan
from equivbench.records.files import write_atomically
from equivbench.records.store import read_record
from equivbench.registry import MODELS, PAIRS
from equivbench.request import DEFAULT_KERNELS
from equivbench.training.job import Job

STATE_FILE = "run.json"
LOG_FILE = "worker.log"
_LOCK_SECONDS = 30.0
"""How long to wait for a worker of an orchestrator that was killed: it still saves at the end of
its slice."""
_RUN_FIELDS = (
    *("pair", "arm", "seed", "budget", "device", "threads", "kernels"),
    *("recipe", "config", "fraction", "labels", "split", "variant"),
)
"""Fields of a job that make it this run and no other, beside those of its request."""


class RunState(msgspec.Struct, kw_only=True):
    """The identity of the run in a state folder, and its records by budget (a prolonged run has
    two)."""

    run_id: str
    created: str
    contest: str = ""
    """The one that it began in."""
    records: dict[str, str] = {}


def on_machine(plan: RunPlan, machine: Machine) -> RunPlan:
    """``plan`` with all that ``machine`` decides: device, threads, kernel backend, state folder.

    A job that is to be resumed takes over the id, the date and the contest of the run in its
    folder.
    """
    contests = [
        replace(each, jobs=tuple(_on_machine(job, machine) for job in each.jobs))
        for each in plan.contests
    ]
    return replace(plan, contests=tuple(contests), machine=machine)


def read_state(folder: str | Path) -> RunState | None:
    """The run in a state folder, or None if there is none that can be read."""
    try:
        return msgspec.json.decode(Path(folder, STATE_FILE).read_bytes(), type=RunState)
    except (OSError, msgspec.DecodeError):
        return None


def finished_record(job: Job) -> Path | None:
    """The record of ``job`` at its budget, if an earlier run of it came to its end and the file is
    still there."""
    state = read_state(job.state_dir)
    if state is None or job.budget not in state.records:
        return None
    path = Path(state.records[job.budget])
    with contextlib.suppress(FailedError):
        if read_record(path).status in ("completed", "diverged"):
            return path
    return None


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


def _on_machine(job: Job, machine: Machine) -> Job:
    takes_kernels = MODELS.get(PAIRS.get(job.pair).arm(job.arm).model).kernels
    kernels = job.request.kernels if takes_kernels else None
    job = msgspec.structs.replace(
        job,
        device=machine.device,
        threads=machine.threads,
        kernels=None if kernels == DEFAULT_KERNELS else kernels,
    )
    job = msgspec.structs.replace(job, state_dir=str(cache_dir() / "runs" / _digest(job)))
    state = read_state(job.state_dir) if job.request.resume else None
    if state is None:
        return job
    return msgspec.structs.replace(
        job,
        run_id=state.run_id,
        created=state.created,
        contest=state.contest or job.contest,
    )


def _digest(job: Job) -> str:
    """A hash of everything that makes ``job`` this run and no other, which names its folder."""
    pair = PAIRS.get(job.pair)
    arm = pair.arm(job.arm)
    sized = arm.presets[job.request.preset]
    # What the job's names stand for today: a changed recipe is another run.
    settings = {
        "model": arm.model,
        "wrapper": arm.wrapper,
        "config": dict(sized.config),
        "recipe": asdict(sized.recipe),
        "requires": dict(MODELS.get(arm.model).requires),
        "data": asdict(pair.presets[job.request.preset]),
    }
    identity = {
        **job.request.identity(),
        **{name: getattr(job, name) for name in _RUN_FIELDS},
        "out": os.path.abspath(job.request.out),
        "settings": settings,
    }
    return hashlib.sha256(msgspec.json.encode(identity, order="sorted")).hexdigest()[:20]


def _write(job: Job, state: RunState) -> None:
    write_atomically(Path(job.state_dir) / STATE_FILE, msgspec.json.encode(state))
