"""Which contest a contest is: a digest of all that makes it this one and no other, which names its
files wherever it runs, and the folder that keeps one arm of it on one kind of machine."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from equivbench.environment import cache_dir, git_state
from equivbench.execution.chosen_data import dataset_of
from equivbench.registry import DATASETS, MODELS, PAIRS, resolve
from equivbench.tasks.archives import ArchiveSource, read_card
from equivbench.training.job import Job

_RUN_FIELDS = (
    *("pair", "arm", "seed", "budget"),
    *("recipe", "config", "fraction", "labels", "split", "variant"),
)
"""Fields of a job that make it this run and no other, beside those of its request."""
_PLACES = ("device", "out")
"""Options that say where something is on one machine."""
_DIGITS = 20
_PACKAGE = Path(__file__).parents[1]


def unit_digest(jobs: Sequence[Job]) -> str:
    """A hash of what makes the contest of ``jobs`` this one, wherever it runs: its jobs as they
    were asked for, the checksum of the data, the version of the code.

    Nothing of a machine is in it but the kind of device that was asked for.
    """
    identities = sorted((_identity(job) for job in jobs), key=lambda each: str(each["arm"]))
    return _digest([identities, data_checksum(dataset_of(jobs[0])), code_version()])


def state_folder(job: Job, machine_key: str) -> Path:
    """Where the cache keeps what a run of ``job``, which knows its unit, is at on a machine of one
    kind. On another kind it is another run."""
    out = os.path.abspath(job.request.out)
    return cache_dir() / "runs" / _digest([job.unit, job.arm, machine_key, out])


def data_checksum(dataset: str) -> str | None:
    """The SHA-256 of a data set as it is declared, or as the card of the one here says; None where
    neither is known yet."""
    # A plug-in's source may raise anything; the workers say what is wrong with it.
    with contextlib.suppress(Exception):
        spec = DATASETS.get(dataset)
        if spec.checksums:
            return str(list(spec.checksums.values())[-1])
        source = resolve(spec.factory)()
        if isinstance(source, ArchiveSource):
            return str(read_card(source.path())["sha256"])
    return None


@cache
def code_version() -> str:
    """What tells one version of the code from another: git's hash of the package's folder, with
    what its files hold where they have changed since; without git the version of the package."""
    found = git_state()
    known = found.version
    if known is None:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            known = importlib.metadata.version("equivbench")
    return f"{known} changed {_content(_PACKAGE)}" if found.dirty else str(known)


def _content(folder: Path) -> str:
    """A hash of the files in ``folder``, without what Python compiled of them."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            found.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return found.hexdigest()[:_DIGITS]


def _identity(job: Job) -> dict[str, Any]:
    """What makes ``job`` this run, as plain data."""
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
        "data": asdict(pair.presets[job.request.preset].on(job.request.dataset)),
    }
    asked = job.request
    named = asked.device if asked.devices is None else asked.devices[0]
    options = asked.identity()
    return {
        **{name: value for name, value in options.items() if name not in _PLACES},
        **{name: getattr(job, name) for name in _RUN_FIELDS},
        "device": named.partition(":")[0],
        "settings": settings,
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()[:_DIGITS]
