"""Where the weights of a record lie: beside it, or in the cache under their SHA-256. Imports no
torch."""

from __future__ import annotations

from pathlib import Path

from equivbench.environment import cache_dir
from equivbench.errors import FailedError
from equivbench.records.files import read_bounded, write_atomically
from equivbench.records.schema import RunRecord

CLAIMED = (
    "What weights do not show remains a claim: clock and throughput, the machine and its share, "
    "memory, and that these weights were trained within the budget."
)
SUFFIX = ".safetensors"
LIMIT = 8 * 2**30
"""Bytes of a file of weights that is read: 2e9 parameters in float32."""


def cached_weights(sha256: str) -> Path:
    """Where the cache has the weights with this SHA-256, if it has them."""
    return cache_dir() / "weights" / f"{sha256}{SUFFIX}"


def weights_beside(record: Path) -> Path:
    """Where the weights of the record at this path are, if they lie beside it."""
    return record.with_suffix(SUFFIX)


def find_weights(record: RunRecord, path: Path) -> Path | None:
    """The weights of ``record``, which is at ``path``: those beside it, else those of the cache;
    None where neither has them."""
    places = [weights_beside(path)]
    if record.weights_sha256 is not None:
        places.append(cached_weights(record.weights_sha256))
    return next((place for place in places if place.is_file()), None)


def put_beside(record: Path, sha256: str) -> Path:
    """Copy the weights that the cache has under ``sha256`` beside the record at ``record``; returns
    where they are. Raises ``FailedError`` where they are not there or cannot be written."""
    source = cached_weights(sha256)
    if not source.is_file():
        raise FailedError(f"the cache has no weights {sha256[:12]}...; train the run again")
    target = weights_beside(record)
    write_atomically(target, read_bounded(source, limit=LIMIT))
    return target
