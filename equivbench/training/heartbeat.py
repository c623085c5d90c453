"""How far a run has got, written each step in one small overwrite, so that work lost in a crash can
be counted."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from equivbench.errors import FailedError
from equivbench.training.clock import PARTS, Part

_FORM = struct.Struct(f"<8sqqd{len(PARTS)}d")
_CHECK = struct.Struct("<I")


@dataclass(frozen=True)
class Beat:
    """The last heartbeat: the step reached, the clock's parts, and the restarts and losses counted
    before it."""

    step: int
    restarts: int
    lost_seconds: float
    clock: Mapping[Part, float]

    @property
    def spent(self) -> float:
        """Seconds charged to the budget."""
        return self.clock["train"] + self.clock["data"]


class Heartbeat:
    """The heartbeat file of one run (``owner``: bytes that tell this run from others in the same
    folder).

    A beat survives the death of the process at any moment (one ``pwrite`` of under a page); it is
    not synced to disk, so a power cut may lose the last ones, and with them a part of
    ``lost_seconds``.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self._path = path
        self._owner = hashlib.blake2b(identity.encode(), digest_size=8).digest()
        self._file: int | None = None

    def write(self, beat: Beat) -> None:
        """Overwrite the beat; a ``FailedError`` says why it cannot be written."""
        body = _FORM.pack(
            self._owner,
            beat.step,
            beat.restarts,
            beat.lost_seconds,
            *(beat.clock[part] for part in PARTS),
        )
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.pwrite(self._file, body + _CHECK.pack(zlib.crc32(body)), 0)
        except OSError as error:
            raise FailedError(
                f"cannot write the heartbeat {self._path}: {error.strerror}"
            ) from error

    def read(self) -> Beat | None:
        """The last beat of this run, or None where there is none that can be read."""
        try:
            data = self._path.read_bytes()
        except OSError:
            return None
        if len(data) != _FORM.size + _CHECK.size or _CHECK.unpack_from(data, _FORM.size)[
            0
        ] != zlib.crc32(data[: _FORM.size]):
            return None
        owner, step, restarts, lost_seconds, *clock = _FORM.unpack_from(data)
        return (
            Beat(step, restarts, lost_seconds, dict(zip(PARTS, clock, strict=True)))
            if owner == self._owner
            else None
        )

    def clear(self) -> None:
        """Forget the beats of an earlier run: this one starts fresh."""
        self._path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
