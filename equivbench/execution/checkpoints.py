"""Finds the checkpoint of a run in the cache by what a user calls the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from equivbench.environment import cache_dir
from equivbench.errors import FailedError, UsageError
from equivbench.execution.state import STATE_FILE, RunState
from equivbench.records.store import read_record
from equivbench.training.checkpoint import CURRENT, read_checkpoint


def checkpoint_of(text: str) -> Path:
    """The checkpoint that ``text`` names: a checkpoint file (``.safetensors``), a run's record
    (``.json``) or its id.

    Raises
    ------
    UsageError
        For the id of several arms.
    FailedError
        For a record that cannot be read and a run whose checkpoint is not here.
    """
    if text.endswith(".safetensors"):
        return Path(text)
    if text.endswith(".json"):
        record = read_record(text)
        return the_one(
            record.run_id,
            checkpoints_of(record.run_id, (f"{record.task}/{record.pair}", record.arm)),
        )
    return the_one(text, checkpoints_of(text))


def checkpoints_of(run_id: str, arm: tuple[str, str] | None = None) -> dict[str, Path]:
    """Checkpoints in the cache of runs with this id, by what tells them apart; of one (pair, arm)
    if given."""
    found = {}
    for path in sorted((cache_dir() / "runs").glob(f"*/{STATE_FILE}")):
        try:
            state = msgspec.json.decode(path.read_bytes(), type=RunState)
        except (OSError, msgspec.DecodeError):
            continue
        records = [Path(record) for record in state.records.values()]
        if run_id != state.run_id and run_id not in [record.stem for record in records]:
            continue
        checkpoint = path.parent / CURRENT
        if not checkpoint.exists():
            continue
        job = read_checkpoint(checkpoint).facts.job
        if arm is None or (job["pair"], job["arm"]) == arm:
            found[str(records[-1]) if records else str(checkpoint)] = checkpoint
    return found


def the_one(run_id: str, found: Mapping[str, Path]) -> Path:
    """The only checkpoint in ``found``; ``FailedError`` where there is none, ``UsageError`` where
    there are several."""
    if not found:
        raise FailedError(
            f"run {run_id} has no checkpoint in {cache_dir() / 'runs'}; checkpoints stay in the cache of the machine"
        )
    if len(found) > 1:
        raise UsageError(
            f"run id {run_id} is that of several arms; name one by its record or checkpoint: {', '.join(found)}"
        )
    return next(iter(found.values()))
