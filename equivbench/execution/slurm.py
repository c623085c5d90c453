"""The executor ``slurm``: the contests of a plan as tasks of a Slurm array, which Slurm places,
queues and requeues.

Plain ``sbatch``: all that a task needs is a file in the results folder, so there is no pickle to
carry and nobody has to wait for its answer (which is what submitit is for). The state of a run is
its records and its lease, never what Slurm calls the job: a requeued job can end as TIMEOUT with
its records whole, and many sites have no accounting to ask.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from equivbench.counted import counted
from equivbench.environment import cache_dir
from equivbench.errors import FailedError, InterruptedRunError
from equivbench.execution.cluster import (
    count_finished,
    named,
    options_by_name,
    outcome,
    own_import_path,
    unfinished,
)
from equivbench.execution.executors import Callback, RunResult
from equivbench.execution.interrupt import Interrupt
from equivbench.execution.leases import BEAT_SECONDS
from equivbench.execution.plan import RunPlan, check_writable
from equivbench.execution.planned import PlanFolder, Unit
from equivbench.records.files import write_atomically

WARNED_SECONDS = 120
"""How long before its time limit a task is told to save and to leave."""
MOST_TASKS = 1000
"""Of one array: Slurm's own default is 1001."""
_LOOK_SECONDS = (1.0, 20.0)
"""The least and the most between two looks at Slurm, whose controller has others to answer; in
between, a tenth of the time waited so far."""
_GONE_SECONDS = 20.0
"""Tasks that are in no queue for so long, and not finished, are gone."""
_ANSWER_SECONDS = 60.0
_SILENT = 6 * BEAT_SECONDS
_DEAF_SECONDS = 600.0
"""How long the controller may be out of reach while its jobs are waited for."""
_RESERVED = {
    "array": "equivbench numbers the contests of a plan; --workers N bounds how many run at once",
    "job-name": "the jobs are called equivbench",
    "output": "logs lie in the folder .plan of the results",
    "error": "logs lie in the folder .plan of the results",
    "chdir": "the tasks work in the folder .plan of the results",
    "wrap": "the tasks run equivbench",
    "requeue": "every task may be requeued: it goes on where it was",
    "no-requeue": "every task may be requeued: it goes on where it was",
    "signal": f"a task is told {WARNED_SECONDS} s before its end to save and to leave",
    "ntasks": "a contest is one task",
    "nodes": "a contest never leaves one node: its arms take turns there",
    "cpus-per-task": "--threads N asks for N CPUs (for each of --devices-per-arm)",
    "clusters": "one cluster is asked for what its jobs do; submit where it is the default one",
    "test-only": "--dry-run shows the script",
    "parsable": "equivbench reads what sbatch says",
    "wait": "the command waits unless it is told to --detach",
}
"""Options of sbatch that are not the user's, and why."""


class SlurmExecutor:
    """Runs plans as arrays of one Slurm cluster, whose nodes share the results folder."""

    def resolve(self, plan: RunPlan) -> RunPlan:
        """``plan`` with its units named; devices and threads are settled on the nodes.

        Raises ``UsageError`` for an option that sbatch does not take from a user.
        """
        options_by_name(plan.request.executor_option, _RESERVED)
        return named(plan)

    def script(self, plan: RunPlan) -> str:
        """What ``run`` would hand to sbatch; the digests of the units name their files."""
        digests = [contest.jobs[0].unit for contest in plan.contests]
        arrays = _arrays(list(dict.fromkeys(digests)))
        return "\n".join(batch_script(plan, array) for array in arrays)

    def run(self, plan: RunPlan, callback: Callback) -> RunResult:
        """Submit every contest that is not finished, and wait for the end of all; with ``--detach``
        return once they are submitted.

        Ctrl-C ends the waiting and nothing else. Raises ``FailedError`` where there is no Slurm or
        it refuses the jobs.
        """
        check_writable(plan.request.out)
        for tool in ("sbatch", "squeue"):
            if shutil.which(tool) is None:
                raise FailedError(
                    f"--executor slurm needs {tool}, which is not here; run this where jobs are "
                    "submitted, or use --executor local"
                )
        folder = PlanFolder(plan.request.out)
        units = folder.add(plan.contests)
        left = units
        if plan.request.resume:
            left = _without_queued(folder, unfinished(folder, units), callback)
        free_from_ended_tasks(folder, left)
        jobs = _submit_all(plan, folder, left)
        result = RunResult()
        if jobs:
            callback.note(
                f"submitted {counted(len(left), 'contest')} as Slurm job {', '.join(jobs)}; "
                f"`equivbench status {plan.request.out}` says how far they are"
            )
        if plan.request.detach:
            return result
        waited = sorted({*jobs, *(task.partition("_")[0] for task in _tasks_of(folder, units))})
        with Interrupt() as interrupt:
            _wait(waited, units, folder, callback, interrupt)
        if interrupt.asked:
            raise InterruptedRunError(
                f"the jobs go on without this process; `equivbench status {plan.request.out}` says "
                f"how far they are, `scancel {' '.join(waited)}` ends them"
            )
        return outcome(folder, units, result, f"logs are {folder.folder}/slurm-JOB_TASK.log")


def _submit_all(plan: RunPlan, folder: PlanFolder, units: Sequence[Unit]) -> list[str]:
    """The numbers of the jobs of an array for every :data:`MOST_TASKS` units, of which each unit's
    own task is noted beside it."""
    jobs: list[str] = []
    for array in _arrays([unit.digest for unit in units]):
        # Where only so many may run at once, arrays run one after the other.
        after = f"afterany:{jobs[-1]}" if jobs and plan.request.workers is not None else None
        try:
            jobs.append(submit(batch_script(plan, array), folder.folder, after))
        except FailedError as error:
            if not jobs:
                raise
            raise FailedError(
                f"{error}; Slurm job {', '.join(jobs)} was submitted before and goes on: submit "
                "the others with --resume, or end it with scancel"
            ) from error
        for task, digest in enumerate(array):
            write_atomically(_task_file(folder, digest), f"{jobs[-1]}_{task}".encode())
    return jobs


def _task_file(folder: PlanFolder, digest: str) -> Path:
    return folder.folder / f"{digest}.slurm"


def _tasks_of(folder: PlanFolder, units: Sequence[Unit]) -> dict[str, str]:
    """By the task that was submitted for it last: the digest of each of ``units`` that has one."""
    found = {}
    for unit in units:
        with contextlib.suppress(OSError):
            found[_task_file(folder, unit.digest).read_text("ascii")] = unit.digest
    return found


def _without_queued(folder: PlanFolder, units: Sequence[Unit], callback: Callback) -> list[Unit]:
    """Those of ``units`` whose task is not in the queue: another one would wait, inside its
    allocation, for the first."""
    tasks = _tasks_of(folder, units)
    queue = in_queue(sorted({task.partition("_")[0] for task in tasks}))
    if queue is None:
        raise FailedError("squeue does not answer, and jobs of this plan may be in the queue")
    there = {digest for task, digest in tasks.items() if task in queue}
    if there:
        found = counted(len(there), "contest")
        callback.note(f"not submitted again, as in the queue or running: {found}")
    return [unit for unit in units if unit.digest not in there]


def batch_script(plan: RunPlan, digests: Sequence[str]) -> str:
    """The script of an array with a task for each of the units ``digests``."""
    request = plan.request
    at_once = f"%{request.workers}" if request.workers is not None else ""
    directives = {
        "job-name": "equivbench",
        "array": f"0-{len(digests) - 1}{at_once}",
        "ntasks": "1",
        "nodes": "1",
        "requeue": "",
        "open-mode": "append",
        "signal": f"B:USR1@{WARNED_SECONDS}",
        "output": "slurm-%A_%a.log",
    }
    # Many sites give a task one CPU unless it asks, too few for several devices.
    if request.threads is not None or request.devices_per_arm > 1:
        directives["cpus-per-task"] = str((request.threads or 1) * request.devices_per_arm)
    directives |= options_by_name(request.executor_option, _RESERVED)
    lines = ["#!/bin/bash"]
    lines += [f"#SBATCH --{key}" + f"={value}" * bool(value) for key, value in directives.items()]
    lines += [f"export {key}={shlex.quote(value)}" for key, value in _environment().items()]
    lines += [
        f"units=({' '.join(digests)})",
        "unit=${units[$SLURM_ARRAY_TASK_ID]}",
        # Until it listens to it, and the shell first of all, the warning must not end the task.
        "trap '' USR1",
        # In the place of the shell, which would keep the signals to itself.
        f"exec {shlex.quote(sys.executable)} -P -m equivbench.execution.slurm_task $unit.json",
        "",
    ]
    return "\n".join(lines)


def submit(script: str, folder: Path, after: str | None = None) -> str:
    """Hand ``script`` to sbatch, to run in ``folder``, with the dependency ``after``; the number of
    its job.

    Raises ``FailedError`` with what sbatch says where it refuses.
    """
    # Within a job its variables would be taken for options of the new one.
    outside = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    outside |= {key: os.environ[key] for key in ("SLURM_CONF",) if key in os.environ}
    options = [f"--chdir={folder.absolute()}", *([f"--dependency={after}"] if after else [])]
    done = ask(["sbatch", "--parsable", *options], input=script, env=outside)
    number = done.stdout.strip().partition(";")[0]
    if done.returncode or not number.isdecimal():
        said = " ".join((done.stderr or done.stdout).split())
        raise FailedError(f"sbatch refused the jobs: {said.removeprefix('sbatch: error: ')}")
    return number


def in_queue(jobs: Sequence[str]) -> set[str] | None:
    """The tasks of ``jobs`` that Slurm has yet to end, as ``JOB_TASK``; None where the controller
    does not answer."""
    if not jobs:
        return set()
    done = ask(["squeue", "-h", "-r", "-o", "%F_%K", "-j", ",".join(jobs)])
    # A job that it has forgotten is over.
    if done.returncode and "invalid job id" not in done.stderr.lower():
        return None
    return set(done.stdout.split())


def ask(command: Sequence[str], **more: Any) -> subprocess.CompletedProcess[str]:
    """What a command of Slurm answers; one that does not answer in time has failed."""
    try:
        return subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=_ANSWER_SECONDS,
            **more,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]} does not answer")


def free_from_ended_tasks(folder: PlanFolder, units: Sequence[Unit]) -> None:
    """Release the leases of tasks that Slurm has ended: one that was killed could not, and whoever
    comes next would watch it for minutes. A lease that is still renewed is that of another
    cluster's task."""
    owners = {}
    for unit in units:
        leases = folder.leases(unit.digest)
        lease = leases.current()
        if lease is not None and lease.owner.startswith("slurm:") and leases.age() > _SILENT:
            owners[unit.digest] = lease.owner
    tasks = {owner.partition(":")[2] for owner in owners.values()}
    queue = in_queue(sorted({task.partition("_")[0] for task in tasks}))
    for digest, owner in owners.items():
        if queue is not None and owner.partition(":")[2] not in queue:
            held = PlanFolder(folder.results, owner).leases(digest).take()
            if held is not None:
                held.release()


def _wait(
    jobs: Sequence[str],
    units: Sequence[Unit],
    folder: PlanFolder,
    callback: Callback,
    interrupt: Interrupt,
) -> None:
    """Until no task is left, or ``interrupt`` is asked for; says when more units are finished."""
    least, most = _LOOK_SECONDS
    began = heard = there = time.monotonic()
    said = -1
    while not interrupt.asked:
        queue, now = in_queue(jobs), time.monotonic()
        finished = count_finished(folder, units)
        if queue is not None:
            heard = now
            there = now if queue else there
            # A task that is being requeued is in no queue for a moment.
            if not queue and (finished == len(units) or now - there >= _GONE_SECONDS):
                return
        elif now - heard > _DEAF_SECONDS:
            raise FailedError(
                f"squeue has not answered for {_DEAF_SECONDS / 60:.0f} min; the jobs "
                f"({', '.join(jobs)}) may go on, `equivbench status` says how far they are"
            )
        if finished != said:
            if said >= 0:
                callback.note(f"finished {finished} of {counted(len(units), 'contest')}")
            said = finished
        look = now + min(most, max(least, 0.1 * (now - began)))
        while not interrupt.asked and time.monotonic() < look:
            time.sleep(0.5)


def _arrays(digests: Sequence[str]) -> list[Sequence[str]]:
    return [digests[k : k + MOST_TASKS] for k in range(0, len(digests), MOST_TASKS)]


_PASSED_ON = re.compile(r"EQUIVBENCH_[A-Z_]+|OMP_NUM_THREADS|PYTHONWARNINGS")


def _environment() -> Mapping[str, str]:
    """What a task needs of this process's environment whatever the site exports: settings of
    equivbench, the cache as this process sees it, and where it imports from."""
    found = {key: value for key, value in os.environ.items() if _PASSED_ON.fullmatch(key)}
    found["EQUIVBENCH_CACHE"] = str(cache_dir().absolute())
    extra = own_import_path()
    return {**found, "PYTHONPATH": extra} if extra else found
