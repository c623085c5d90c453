"""A job: all that a worker process needs to train one arm with one seed, as plain data that
survives JSON."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Job(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One arm, one seed, one budget."""

    pair: str
    """``task/pair``, as registered."""
    arm: str
    preset: str
    budget: str
    """As ``Budget.parse`` takes it; the pair's default is already filled in."""
    seed: int
    run_id: str
    created: str
    """UTC, ISO 8601."""
    command: str
    """The command line, for the record."""
    out: str
    """Results folder."""
    state_dir: str
    """Folder of this run's checkpoints and heartbeat, in the cache."""
    device: str = "cpu"
    """``cpu``, ``cuda`` or ``cuda:N``; ``auto`` is already resolved."""
    threads: int = 1
    """Intra-op threads, set by the worker before it builds the trainer."""
    variant: dict[str, str] = {}
    """The task's options that were chosen, e.g. ``{"forces": "conservative"}``; options left out
    take their default."""
    kernels: str | None = None
    """Kernel backend, passed to the model as ``config["kernels"]``; None leaves the model its own
    default."""
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
    resume: bool = False
    """Go on from the last checkpoint in ``state_dir``; with none there, start fresh."""
    snapshots: bool = False
    """Keep the weights of every evaluation beside the checkpoints, for the analyses along
    training."""
    extends: str | None = None
    """The budget that ``budget`` prolongs (``--extend``): evaluations up to it fall as in the run
    without extension."""

    @property
    def title(self) -> str:
        """What it is, for progress and messages: ``forcefield/vector equivariant seed 0 (sweep
        data, value 0.25)``."""
        labels = ", ".join(f"{name} {value}" for name, value in self.labels.items())
        return f"{self.pair} {self.arm} seed {self.seed}" + (f" ({labels})" if labels else "")
