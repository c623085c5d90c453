"""A job: all that a worker process needs to train one arm with one seed, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from equivbench.errors import FailedError
from equivbench.request import RunRequest


class Job(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One arm with one seed, of what ``request`` asks for. It survives JSON."""

    request: RunRequest
    """What the user asked for: preset, forces, snapshots, whether to resume, the results folder."""
    pair: str
    """``task/pair``, as registered."""
    arm: str
    seed: int
    budget: str
    """As :meth:`equivbench.budget.Budget.parse` takes it; the pair's default is filled in."""
    run_id: str
    created: str = ""
    """UTC, ISO 8601."""
    command: str = ""
    """The command line, for the record."""
    state_dir: str = ""
    """Folder of this run's checkpoints and heartbeat, in the cache of the machine it runs on."""
    device: str = "cpu"
    """``cpu``, ``cuda`` or ``cuda:N``, as the machine that runs the job resolved it."""
    threads: int = 1
    """Intra-op threads, set by the worker before it builds the trainer."""
    kernels: str | None = None
    """Kernel backend, passed to the model as ``config["kernels"]``. None leaves the model its own
    default, as for every model that takes its operations from no backend."""
    variant: dict[str, str] = {}
    """The task's options that were chosen, e.g. ``{"forces": "conservative"}``; options left out
    take their default."""
    recipe: dict[str, Any] = {}
    """Fields of :class:`equivbench.specs.Recipe` that replace the preset's (``tune``, sweeps)."""
    config: dict[str, Any] = {}
    """Entries that replace those of the model's config (sweeps over model size)."""
    fraction: float = 1.0
    """Part of the training groups that is trained on
    (:func:`equivbench.tasks.splits.with_fraction`)."""
    labels: dict[str, str] = {}
    """What sets the run apart from the pair as declared, such as a sweep's axis and value; the
    record's ``variant`` has it."""
    split: Literal["test", "validation"] = "test"
    """What evaluations are made on; ``tune`` uses the validation split."""
    extends: str | None = None
    """The budget that ``budget`` prolongs (``--extend``): evaluations up to it fall as in the run
    without extension."""

    @property
    def title(self) -> str:
        """What it is, for progress and messages: ``forcefield/vector equivariant seed 0 (sweep
        data, value 0.25)``."""
        labels = ", ".join(f"{name} {value}" for name, value in self.labels.items())
        return f"{self.pair} {self.arm} seed {self.seed}" + (f" ({labels})" if labels else "")


def read_job(facts: Mapping[str, Any]) -> Job:
    """The job that a checkpoint keeps.

    Raises
    ------
    FailedError
        Where another version of equivbench wrote it.
    """
    try:
        return msgspec.convert(facts, Job)
    except msgspec.ValidationError as error:
        raise FailedError(
            f"another version of equivbench wrote this checkpoint ({error}); train the run again"
        ) from error
