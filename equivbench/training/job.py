"""A job: all that a worker process needs to train one arm with one seed, as plain data that survives JSON."""

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
    """The task's options that were chosen, e.g. ``{"forces": "conservative"}``; options left out take their default."""
    kernels: str | None = None
    """Kernel backend, passed to the model as ``config["kernels"]``; None leaves the model its own default."""
    recipe: dict[str, Any] = {}
    """Fields of :class:`equivbench.pairs.base.Recipe` that replace the preset's (``tune``)."""
    split: Literal["test", "validation"] = "test"
    """What evaluations are made on; ``tune`` uses the validation split."""
    resume: bool = False
    """Go on from the last checkpoint in ``state_dir``; with none there, start fresh."""
    extends: str | None = None
    """The budget that ``budget`` prolongs (``--extend``): evaluations up to it fall as in the run without extension."""
