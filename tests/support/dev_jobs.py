"""Jobs of runs of the shipped pairs at the size ``dev``, for tests that train them in their own
process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from equivbench.registry import PAIRS
from equivbench.request import RunRequest
from equivbench.training.job import Job


def dev_job(
    folder: Path,
    pair: str = "forcefield/vector",
    arm: str = "augmented",
    *,
    asked: Mapping[str, Any] | None = None,
    **change: Any,
) -> Job:
    """The job of seed 0 for ten steps, whose state and records go to ``folder``.

    ``asked`` are further options of its request; ``change`` names fields of the job. The options of
    the task are those that the arm needs, unless it does.
    """
    job = Job(
        pair=pair,
        arm=arm,
        request=RunRequest(preset="dev", out=str(folder), **(asked or {})),
        budget="10steps",
        seed=0,
        run_id="dev-seed0",
        created="2026-01-01T00:00:00+00:00",
        state_dir=str(folder),
        variant=dict(PAIRS.get(pair).arm(arm).needs),
    )
    return msgspec.structs.replace(job, **change)
