"""The executor ``ray``: the contests of a plan as tasks of Ray, on a running cluster or on one that
is started here.

Where a node sees the results folder, it works on the plan there; where it does not, its records
come back through Ray. Ray repeats a task whose node is gone, on another one.
"""

from __future__ import annotations

import base64
import contextlib
import math
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import msgspec

from equivbench.counted import counted
from equivbench.environment import required, usable_cores
from equivbench.errors import EquivbenchError, FailedError, UsageError
from equivbench.execution.cluster import (
    named,
    options_by_name,
    outcome,
    own_import_path,
    unfinished,
)
from equivbench.execution.executors import Callback, RunResult
from equivbench.execution.interrupt import Interrupt
from equivbench.execution.plan import RunPlan, check_writable
from equivbench.execution.planned import PlanFolder, Unit
from equivbench.execution.ray_task import Sent, SentBack, mark, run_sent
from equivbench.records.files import create_atomically, write_atomically
from equivbench.records.store import decode_record, write_record

_LOOK_SECONDS = 1.0
_PATIENCE = 120.0
"""Seconds that contests get to save their state once they are to stop."""
_RETRIES = 20
"""How often Ray begins a task again whose node is gone."""
_RESERVED = {
    "num_cpus": "--threads N asks for N CPUs",
    "num-cpus": "--threads N asks for N CPUs",
    "memory": "Ray's memory is no limit of a contest; ask for a custom resource",
}


class RayExecutor:
    """Runs plans as tasks of one Ray cluster.

    ``--executor-option address=ADDRESS`` names a running one (``auto``: the one of this machine),
    ``num_gpus=N`` how many GPUs a contest takes (1 where ``--device`` is cuda), ``retries=N`` how
    often a contest whose node is gone is begun again; any other option is a custom resource of
    Ray that a contest takes.
    """

    def resolve(self, plan: RunPlan) -> RunPlan:
        """``plan`` with its units named; devices and threads are settled on the nodes.

        Raises ``UsageError`` for an option that makes no sense.
        """
        _task_options(plan)
        if plan.request.detach:
            raise UsageError(
                "--detach: Ray ends what it runs with the process that asked for it; leave it out, "
                "or submit the command itself as a Ray job"
            )
        return named(plan)

    def script(self, plan: RunPlan) -> str:
        """What a task of Ray takes."""
        return f"each contest is a Ray task with {_task_options(plan)}"

    def run(self, plan: RunPlan, callback: Callback) -> RunResult:
        """Run every contest that is not finished; Ctrl-C stops them, with their state saved.

        Raises ``FailedError`` without Ray, where its cluster cannot be reached, and where no node
        of it has what a contest takes.
        """
        ray = required("ray", "contests are run by Ray", "ray")
        check_writable(plan.request.out)
        folder = PlanFolder(plan.request.out)
        units = folder.add(plan.contests)
        left = unfinished(folder, units) if plan.request.resume else units
        result = RunResult()
        owner = f"ray:{os.getpid()}-{secrets.token_hex(4)}"
        seen = mark(folder, owner)
        write_atomically(seen, b"", durable=False)
        try:
            with _connected(ray, plan), Interrupt() as interrupt:
                _check_fits(ray, plan)
                task = ray.remote(run_sent).options(**_task_options(plan))
                _run_all(ray, task, owner, plan, folder, left, callback, result, interrupt)
                result.interrupted = interrupt.asked
        finally:
            seen.unlink(missing_ok=True)
        if result.interrupted:
            return result
        return outcome(folder, units, result, "its node may have told more in Ray's logs")


def _task_options(plan: RunPlan) -> dict[str, Any]:
    """Of ``ray.remote``, for one contest."""
    request = plan.request
    given = options_by_name(request.executor_option, _RESERVED)
    given.pop("address", None)
    try:
        needed = request.devices_per_arm if request.device == "cuda" else 0
        gpus = int(given.pop("num_gpus", str(needed)))
        retries = int(given.pop("retries", str(_RETRIES)))
        resources = {key: float(value) for key, value in given.items()}
        if min(gpus, retries, *resources.values()) < 0 or not all(
            map(math.isfinite, resources.values())
        ):
            raise ValueError
    except ValueError:
        raise UsageError(
            "--executor-option of ray takes address=ADDRESS, num_gpus=N (whole ones: contests that "
            "are timed never share one), retries=N and custom resources with the number that a "
            "contest takes"
        ) from None
    if request.device == "auto" and gpus:
        raise UsageError("--executor-option num_gpus asks for GPUs: say --device cuda too")
    cpus = (request.threads or 1) * request.devices_per_arm
    found = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": retries}
    return {**found, "resources": resources} if resources else found


@contextlib.contextmanager
def _connected(ray: Any, plan: RunPlan) -> Iterator[None]:
    """Inside, a cluster: the one at the address that is given, else one of this machine alone."""
    address = options_by_name(plan.request.executor_option, _RESERVED).get("address")
    about: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address:
        about["address"] = address
    else:
        about |= {"address": "local", "num_cpus": usable_cores(), "include_dashboard": False}
    about["runtime_env"] = {"env_vars": {"PYTHONPATH": own_import_path()}}
    try:
        ray.init(**about)
    except Exception as error:  # Ray raises many kinds for what the user can mend
        said = " ".join(str(error).split())
        raise FailedError(f"no Ray cluster at {address or 'this machine'}: {said}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_fits(ray: Any, plan: RunPlan) -> None:
    """Raise ``FailedError`` where no node has what a contest takes: Ray would wait for ever."""
    options = _task_options(plan)
    takes = {"CPU": options["num_cpus"], "GPU": options["num_gpus"]} | options.get("resources", {})
    nodes = [each["Resources"] for each in ray.nodes() if each["Alive"]]
    if not any(all(node.get(key, 0) >= value for key, value in takes.items()) for node in nodes):
        needed = ", ".join(f"{key} {value:g}" for key, value in takes.items() if value)
        raise FailedError(f"no node of the Ray cluster has what a contest takes ({needed})")


def _run_all(
    ray: Any,
    task: Any,
    owner: str,
    plan: RunPlan,
    folder: PlanFolder,
    units: list[Unit],
    callback: Callback,
    result: RunResult,
    interrupt: Interrupt,
) -> None:
    """Hand every unit to Ray, at most as many at once as ``--workers`` says, and take in what comes
    back, also of those that are stopped."""
    waiting, running = list(reversed(units)), dict[Any, Unit]()
    at_once = plan.request.workers or len(units)
    results = str(folder.results.absolute())
    deadline: float | None = None
    while (waiting and not interrupt.asked) or running:
        if interrupt.asked and deadline is None:
            deadline = time.monotonic() + _PATIENCE
            for each in running:
                with contextlib.suppress(Exception):
                    ray.cancel(each)
        if deadline is not None and time.monotonic() > deadline:
            return
        while waiting and len(running) < at_once and not interrupt.asked:
            unit = waiting.pop()
            sent = Sent(unit=unit, results=results, owner=owner)
            running[task.remote(msgspec.json.encode(sent))] = unit
        done, _ = ray.wait(list(running), timeout=_LOOK_SECONDS)
        for each in done:
            unit = running.pop(each)
            take_in(ray, each, unit, folder, result)
            left = counted(len(waiting) + len(running), "contest")
            callback.note(f"{unit.title} is over; left: {left}")


def take_in(ray: Any, reference: Any, unit: Unit, folder: PlanFolder, result: RunResult) -> None:
    """Write what came back from a node that does not see the results folder, and note what went
    wrong."""
    try:
        back = msgspec.json.decode(ray.get(reference), type=SentBack)
    except Exception as error:  # noqa: BLE001  whatever the task raised, or Ray about it
        said = " ".join(str(error).split())[-300:]
        result.failures.append(f"{unit.title}: Ray says: {said}")
        return
    if back.failure is not None:
        said = back.failure
        said = said if said.startswith(unit.title) else f"{unit.title}: {said}"
        result.failures.append(said)
    try:
        for name, text in back.files.items():
            if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
                raise FailedError(f"a node sent a file with the name {name!r}")
            data = base64.b64decode(text)
            if name.endswith(".json"):
                # It takes the place of that of an interrupted run, and of nothing else.
                write_record(decode_record(data, name), folder.results)
            else:
                create_atomically(folder.results / name, data)
        if back.unit is not None:
            write_atomically(folder.path(unit.digest), msgspec.json.encode(back.unit))
    except EquivbenchError as error:
        result.failures.append(f"{unit.title}: {error}")
