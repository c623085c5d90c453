"""``equivbench doctor``: device, versions, compiler, optional backends, cache and data, and what to
do about what is missing."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import typer

from equivbench.cli.output import Exit, print_table
from equivbench.counted import counted
from equivbench.report.table import Column, Table

State = Literal["ok", "absent", "broken"]
ESSENTIAL = ("torch", "e3nn", "torch-geometric", "numpy", "scipy", "msgspec", "safetensors")
OPTIONAL = {
    "matplotlib": ("plots", "pip install 'equivbench[plots]'"),
    "pandas": ("data frames", "pip install 'equivbench[notebooks]'"),
    "h5py": ("reading SPICE", "pip install 'equivbench[spice]'"),
    "ase": ("ASE calculators", "pip install 'equivbench[ase]'"),
    "metatomic-torch": ("metatomic models", "pip install 'equivbench[metatomic]'"),
    "rdkit": ("generating data", "pip install 'equivbench[generate]'"),
    "tblite": ("generating data (Linux x86-64)", "pip install 'equivbench[generate]'"),
    "nvidia-ml-py": ("GPU energy and clocks", "pip install 'equivbench[gpu]'"),
}
"""Distribution -> what it is for and how to get it."""
ENOUGH_BYTES = 200 * 10**6
"""Free space for the checkpoints of a run and the prepared data sets (14 MB the largest)."""


KEPT = {
    "runs": "what was interrupted cannot be resumed then, and no checkpoint be measured",
    "weights": "records whose weights are not beside them (`equivbench run --keep-weights "
    "--resume` puts them there) cannot be audited then",
    "kernels": "they are compiled again when they are needed",
    "datasets": "`equivbench data prepare` makes them again",
    "environments": "`equivbench pretrained` makes them again, which takes a network connection",
}
"""Folders of the cache that grow and that equivbench never empties by itself, and what it costs to
remove them."""


class Check(NamedTuple):
    """One thing that was looked at; ``advice`` says what to do where it is not ok."""

    name: str
    state: State
    detail: str
    advice: str = ""


def doctor(
    json: Annotated[
        bool, typer.Option("--json", help="Print a list of {name, state, detail, advice}.")
    ] = False,
) -> None:
    """What this machine has and lacks. Exits 3 if something is broken that every run needs."""
    parts = (machine, packages, torch_works, gpus, kernel_backends, storage, plugins)
    checks = [check for part in parts for check in part()]
    checks += data() if json else _in_short(data())
    headings = {"name": "checked", "state": "state", "detail": "found"}
    columns = [
        Column(name, heading=heading, wraps=name == "detail") for name, heading in headings.items()
    ]
    columns.append(Column("advice", show="data"))
    # On lines of their own, because they are commands to copy.
    to_do = [f"{check.name}: {check.advice}" for check in checks if check.advice]
    print_table(Table("", columns, checks, notes=to_do), json=json)
    if any(check.state == "broken" for check in checks):
        raise typer.Exit(Exit.FAILED)


def _in_short(sets: Iterable[Check]) -> Iterator[Check]:
    """The checks of data ``sets``, with those that can be had in one, since most never will be."""
    absent = 0
    for each in sets:
        if each.advice:
            absent += 1
        else:
            yield each
    if absent:
        advice = "`equivbench list datasets` names them, `equivbench data prepare NAME` gets one"
        further = f"{counted(absent, 'further data set')} not on this machine"
        yield Check("further data", "absent", further, advice)


def found(
    name: str, detail: str | None, missing: str, advice: str = "", state: State = "absent"
) -> Check:
    """``ok`` with ``detail`` where there is one, else what is missing and what to do about it."""
    return Check(name, "ok", detail) if detail else Check(name, state, missing, advice)


def machine() -> Iterator[Check]:
    """Processor, cores, memory, compiler, GPU driver."""
    import psutil

    from equivbench.environment import cpu_model, cxx_compiler, usable_cores
    from equivbench.gpu import driver_version

    memory = psutil.virtual_memory()
    yield Check(
        "processor",
        "ok",
        f"{cpu_model()}, {usable_cores()} of {counted(os.cpu_count() or 1, 'core')} usable",
    )
    yield Check("memory", "ok", f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free")
    yield Check(
        "python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    )
    advice = "install g++ (or set CXX): without it arms run eager, without torch.compile"
    yield found("c++ compiler", cxx_compiler(), "none found", advice)
    yield found("gpu driver", driver_version(), "no NVIDIA driver; runs use the CPU")


def packages() -> Iterator[Check]:
    """Versions of what every run needs and of what is optional."""
    from equivbench.environment import package_versions

    there = package_versions(("equivbench", *ESSENTIAL, *OPTIONAL))
    yield Check("equivbench", "ok", there.get("equivbench", "run from a checkout, not installed"))
    for name in ESSENTIAL:
        yield found(name, there.get(name), "not installed", f"pip install {name}", "broken")
    for name, (purpose, advice) in OPTIONAL.items():
        detail = f"{there[name]}, for {purpose}" if name in there else None
        yield found(name, detail, f"for {purpose}", advice)


def torch_works() -> Iterator[Check]:
    """Whether torch imports and computes, and what device ``--device auto`` means here."""
    advice = "install torch again"
    try:
        import torch

        total = float(torch.ones(8).sum())
        device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
        where = f"{device}, {counted(torch.get_num_threads(), 'thread')}"
    except Exception as error:  # noqa: BLE001  a broken installation can fail in any way
        where = f"torch does not work: {type(error).__name__}: {error}"
        total = 0.0
    yield found("device", where if total == 8.0 else None, where, advice, "broken")


def gpus() -> Iterator[Check]:
    """Each GPU: whether it computes, its memory, and how it is set."""
    try:
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    except Exception:  # noqa: BLE001  torch_works() says what is wrong with torch
        return
    for number in range(count):
        yield gpu(f"cuda:{number}")


def gpu(device: str) -> Check:
    """What ``device`` is, and what keeps it from computing or both arms of a contest from sharing
    it."""
    import torch

    from equivbench.gpu import gpu_name, gpu_settings, why_not_shared

    try:
        total = float(torch.ones(8, device=device).sum())
        free, whole = torch.cuda.mem_get_info(device)
        name, settings = gpu_name(device), gpu_settings(device)
    except Exception as error:  # noqa: BLE001  a driver, a build or another process may be at fault
        said = f"does not compute: {type(error).__name__}: {error}"
        advice = "install a torch that is built for this GPU and its driver, or end what holds it"
        return Check(f"gpu {device}", "absent", said, advice)
    parts = [name, f"{free / 1e9:.1f} of {whole / 1e9:.1f} GB free"]
    if isinstance(settings, str):
        return Check(f"gpu {device}", "ok", ", ".join(parts), settings)
    parts.append(f"compute mode {settings.compute_mode}")
    if settings.power_cap_watts is not None:
        parts.append(f"capped at {settings.power_cap_watts} W")
    if settings.mig is not None:
        parts.append(f"slice {settings.mig}")
    refused = why_not_shared(device, 2)
    right = total == 8.0 and refused is None
    state: State = "ok" if right else "absent"
    return Check(f"gpu {device}", state, ", ".join(parts), refused or "")


def kernel_backends() -> Iterator[Check]:
    """Which kernel backends can run here."""
    import torch

    from equivbench.kernels.backend import backend
    from equivbench.kernels.backends import absent
    from equivbench.registry import KERNEL_BACKENDS

    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    for name, entry in sorted(KERNEL_BACKENDS.entries().items()):
        spec, reason = entry.value, absent(entry.value)
        if reason is None and where.type in spec.devices:
            reason = backend(name).missing(where)
        yield Check(f"kernels: {name}", "absent" if reason else "ok", spec.summary, reason or "")


def storage() -> Iterator[Check]:
    """Whether the cache can be written and how much space is left."""
    from equivbench.environment import cache_dir
    from equivbench.kernels.private_folder import places_of_ones_own

    cache = cache_dir()
    existing = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    made = "" if cache.exists() else " (made by the first run)"
    where = f"{cache}{made}, {free / 1e9:.1f} GB free"
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        advice = "set EQUIVBENCH_CACHE to a folder that can be written"
        yield Check("cache", "broken", f"{where}, cannot be written", advice)
    else:
        advice = "free some space or set EQUIVBENCH_CACHE to a folder on another disk"
        yield found("cache", where if free >= ENOUGH_BYTES else None, where, advice, "broken")
    kept = [(name, cache / name, cost) for name, cost in KEPT.items()]
    # What was compiled or installed where others can write the cache.
    again = "kernels are compiled and environments made again when they are needed"
    kept += [("kernels of your own", each, again) for each in places_of_ones_own()]
    for name, folder, cost in kept:
        files, size = contents(folder)
        if files:
            advice = f"to free it delete {folder} while nothing runs; {cost}"
            yield Check(
                f"cache: {name}", "ok", f"{counted(files, 'file')}, {size / 1e9:.2f} GB", advice
            )


def contents(folder: Path) -> tuple[int, int]:
    """(number of files below ``folder``, their bytes); links are not followed."""
    files = size = 0
    for where, _, names in os.walk(folder):
        for name in names:
            # One that a run removes meanwhile takes no space.
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(where, name)).st_size
                files += 1
    return files, size


def data() -> Iterator[Check]:
    """Which data sets are on this machine."""
    from equivbench.registry import DATASETS, DuplicateNameError, resolve

    try:
        entries = DATASETS.entries()
    except DuplicateNameError:
        return  # what plugins() reports
    for name, entry in sorted(entries.items()):
        try:
            path: Path = resolve(entry.value.factory)().path()
            detail = str(path) if path.exists() else None
        except Exception as error:  # noqa: BLE001  a plug-in's source may raise anything
            yield Check(f"data {name}", "absent", f"{type(error).__name__}: {error}")
            continue
        yield found(f"data {name}", detail, str(path), f"equivbench data prepare {name}")


def plugins() -> Iterator[Check]:
    """Distributions that register something here, and those that were left out."""
    from equivbench.registry import PLUGINS, TASKS, DuplicateNameError

    try:
        TASKS.entries()
    except DuplicateNameError as error:
        yield Check("plug-ins", "broken", str(error), "uninstall one of the two")
    owners: dict[str, set[str]] = defaultdict(set)
    for owner, point in PLUGINS.installed():
        owners[owner].add(point.name)
    for owner, names in sorted(owners.items()):
        problem = PLUGINS.problems.get(owner)
        detail = ", ".join(sorted(names)) if problem is None else None
        advice = "update or uninstall it"
        yield found(f"plug-in {owner}", detail, f"left out: {problem}", advice)
