"""The heartbeat of a run: how far it has got, in a file that survives the death of its process at
any moment. Imports no torch, for whoever asks after a dead one."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from equivbench.errors import FailedError
from equivbench.training.clock import PARTS, ClockPart

HEARTBEAT = "heartbeat"
"""The file, in the folder of the run's state."""
_FORM = struct.Struct(f"<8sqqd{len(PARTS)}d")
_CHECK = struct.Struct("<I")


class Beat(NamedTuple):
    """The last heartbeat: the step reached, the restarts and losses counted before it, and the
    clock's parts."""

    step: int
    restarts: int
    lost_seconds: float
    clock: dict[ClockPart, float]


class Heartbeat:
    """The heartbeat file of one run (``identity`` tells it from others in the same folder; without
    one it reads whichever is there).

    A beat survives the death of the process at any moment (one ``pwrite`` of under a page); it is
    not synced to disk, so a power cut may lose the last ones, and with them a part of
    ``lost_seconds``.
    """

    def __init__(self, path: Path, identity: bytes | None = None) -> None:
        self._path = path
        self._owner = hashlib.blake2b(identity or b"", digest_size=8).digest()
        self._anyone = identity is None
        self._file: int | None = None

    def write(self, beat: Beat) -> None:
        """Overwrite the beat; a ``FailedError`` says why it cannot be written."""
        *counts, clock = beat
        body = _FORM.pack(self._owner, *counts, *(clock[part] for part in PARTS))
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
        body, check = data[: _FORM.size], data[_FORM.size :]
        if len(body) != _FORM.size or check != _CHECK.pack(zlib.crc32(body)):
            return None
        owner, step, restarts, lost_seconds, *clock = _FORM.unpack(body)
        if owner != self._owner and not self._anyone:
            return None
        return Beat(step, restarts, lost_seconds, dict(zip(PARTS, clock, strict=True)))

    def clear(self) -> None:
        """Forget the beats of an earlier run."""
        self._path.unlink(missing_ok=True)
        if self._file is not None:
            os.close(self._file)
            self._file = None
