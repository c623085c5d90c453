"""What the cache keeps of a run so that it can be resumed: which run it is, its checkpoints, and
which records it has."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from equivbench.environment import cache_dir
from equivbench.errors import FailedError
from equivbench.records.files import write_atomically
from equivbench.records.store import read_record
from equivbench.training.job import Job

STATE_FILE = "run.json"
_PATIENCE = 30.0
"""Seconds to wait for a worker of an orchestrator that was killed: it still saves at the end of its
slice."""


class RunState(msgspec.Struct, kw_only=True):
    """The identity of the run in a state folder, and its records by budget (a prolonged run has
    two)."""

    run_id: str
    created: str
    records: dict[str, str] = {}


def identify(job: Job, settings: dict[str, Any]) -> Job:
    """``job`` with its state folder, named by a hash of everything that makes it this run and no
    other.

    ``settings`` is what the job's names stand for today (config, recipe, data set), so that a
    changed recipe is another run. With ``job.resume`` and a run in that folder, the job takes over
    its run id and date.
    """
    named = ["pair", "arm", "preset", "budget", "seed", "device", "threads", "variant", "kernels"]
    named += ["recipe", "config", "fraction", "labels", "snapshots"]
    identity = {name: getattr(job, name) for name in named} | {
        "out": os.path.abspath(job.out),
        "settings": settings,
    }
    digest = hashlib.sha256(msgspec.json.encode(identity, order="sorted")).hexdigest()[:20]
    job = msgspec.structs.replace(job, state_dir=str(cache_dir() / "runs" / digest))
    state = read_state(job) if job.resume else None
    return (
        job
        if state is None
        else msgspec.structs.replace(job, run_id=state.run_id, created=state.created)
    )


def read_state(job: Job) -> RunState | None:
    """The run in the job's state folder, or None if there is none that can be read."""
    try:
        return msgspec.json.decode((Path(job.state_dir) / STATE_FILE).read_bytes(), type=RunState)
    except (OSError, msgspec.DecodeError):
        return None


def finished_record(job: Job) -> Path | None:
    """The record of ``job`` at its budget, if an earlier run of it came to its end and the file is
    still there."""
    state = read_state(job)
    path = (
        Path(state.records[job.budget])
        if state is not None and job.budget in state.records
        else None
    )
    if path is None:
        return None
    try:
        return path if read_record(path).status in ("completed", "diverged") else None
    except FailedError:
        return None


def open_state(job: Job) -> None:
    """Make the job's state folder: emptied for a fresh run, kept for one that is resumed."""
    folder = Path(job.state_dir)
    if job.resume and read_state(job) is not None:
        for half_written in folder.glob(
            "*.partial"
        ):  # by a worker that was killed; the lock says that none writes now
            half_written.unlink(missing_ok=True)
        return
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FailedError(
            f"cannot make the state folder {folder}: {error.strerror}; set EQUIVBENCH_CACHE to another"
        ) from error
    _write(job, RunState(run_id=job.run_id, created=job.created))


def remember_record(job: Job, path: Path) -> None:
    """Note that ``job`` has its record at ``path``."""
    state = read_state(job) or RunState(run_id=job.run_id, created=job.created)
    state.records[job.budget] = str(path.resolve())
    _write(job, state)


@contextlib.contextmanager
def locked(job: Job) -> Iterator[int]:
    """Hold the job's state folder; the descriptor goes to the worker, so that the lock lasts as
    long as either lives.

    Raises :class:`FailedError` if another run of the same job keeps it.
    """
    path = Path(f"{job.state_dir}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise FailedError(
            f"cannot write {path}: {error.strerror}; set EQUIVBENCH_CACHE to a folder that can be written"
        ) from error
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise FailedError(
                        f"another process is running {job.title} with these settings; wait for it to end"
                    ) from None
                time.sleep(0.2)
        yield descriptor
    finally:
        os.close(descriptor)


def _write(job: Job, state: RunState) -> None:
    write_atomically(Path(job.state_dir) / STATE_FILE, msgspec.json.encode(state))
