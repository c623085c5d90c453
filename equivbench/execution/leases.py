"""Who is at work on a unit of a plan: a lease, a small file that is created exclusively and renewed
by a heartbeat.

A lease needs no lock, no database and no clock that two machines share, so that it serves on any
file system that processes or machines have in common. The leases that a unit has had are numbered,
and the highest number holds: whoever takes over creates the next one, which only one can, and
whoever finds a higher one than its own has lost the unit and writes no more of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import msgspec
import psutil

from equivbench.errors import FailedError
from equivbench.execution.plan import utc
from equivbench.records.files import create_atomically, read_bounded, write_atomically

BEAT_SECONDS = 5.0
"""How often whoever holds a lease says that it is there."""
SILENT_SECONDS = 300.0
"""A lease that has been watched for so long without a sign of life is taken over: its machine is
gone. That of a process of this machine is taken over once the process is."""
_FOLDER = ".leases"
_held: set[str] = set()
"""Leases that this process holds: another thread of it is another owner."""


class ArmProgress(msgspec.Struct, kw_only=True, frozen=True):
    """How far one arm is, as a lease tells it."""

    step: int
    spent: float
    limit: float


class Lease(msgspec.Struct, kw_only=True, frozen=True):
    """What the file says."""

    owner: str
    taken: str
    """UTC, ISO 8601, by the clock of the owner."""
    devices: list[str] = []
    machine_key: str = ""
    beats: int = 0
    """A count, not a time: clocks of two machines differ."""
    doing: str = ""
    progress: dict[str, ArmProgress] = {}
    released: bool = False


UNREADABLE = Lease(owner="", taken="", beats=-1)
"""Stands for a file that cannot be read yet, or any more."""


def local_owner() -> str:
    """This process, as the owner of leases: ``local:<machine since it was started>:<process>``; it
    holds no host name."""
    return f"local:{_this_boot()}:{os.getpid()}-{_started(os.getpid())}"


def is_alive(owner: str) -> bool | None:
    """Whether the process that ``owner`` names still runs; None where nobody here can tell."""
    kind, _, rest = owner.partition(":")
    boot, _, process = rest.partition(":")
    number, _, started = process.partition("-")
    if kind != "local" or boot != _this_boot() or not number.isdecimal():
        return None
    now = _started(int(number))
    return now == started or now == ""


class HeldLease:
    """A lease that this process holds, from when it was taken until it is released."""

    def __init__(self, leases: Leases, number: int, lease: Lease) -> None:
        self._leases, self._number, self._lease = leases, number, lease
        self._released = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def lost(self) -> bool:
        """Whether somebody else has taken it over."""
        return self._leases.highest() > self._number

    def tell(self, **what: object) -> None:
        """Renew it, and say ``what`` goes on (fields of :class:`Lease`). A disk that refuses is
        no reason to end a run: the lease is silent then."""
        self._lease = msgspec.structs.replace(self._lease, beats=self._lease.beats + 1, **what)
        with contextlib.suppress(FailedError):
            if not self.lost:
                self._leases.write(self._number, self._lease)

    def keep(self, report: Callable[[], dict[str, object]], on_lost: Callable[[], None]) -> None:
        """Renew it every few seconds from here on with what ``report`` gives, in a thread, until it
        is released; ``on_lost`` is called once if somebody takes it over."""

        def beat() -> None:
            while not self._released.wait(BEAT_SECONDS):
                if self.lost:
                    on_lost()
                    return
                self.tell(**report())

        self._thread = threading.Thread(target=beat, name="equivbench-lease", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Let others take it."""
        self._released.set()
        if self._thread is not None:
            self._thread.join()
        self.tell(released=True, progress={}, doing="")
        _held.discard(self._leases.key)


class Leases:
    """The leases of one unit: files in a folder beside ``stem``, as ``owner`` sees them. It is
    looked through quickly, however large the plan is.

    An instance is kept while a unit is waited for: it remembers since when a lease is silent.
    """

    def __init__(self, stem: Path, owner: str) -> None:
        self._folder, self._owner = stem.with_name(f"{stem.name}{_FOLDER}"), owner
        self._seen: tuple[int, int, float] | None = None
        """The number and the beats of the lease that was seen last, and since when."""

    @property
    def key(self) -> str:
        """What the unit is called in this process."""
        return os.path.abspath(self._folder)

    def highest(self) -> int:
        """The number of the lease that holds; 0 where there never was one."""
        return max(self._numbers(), default=0)

    def current(self) -> Lease | None:
        """The lease that holds, if somebody has it."""
        number = self.highest()
        lease = self._read(number) if number else None
        return None if lease is None or lease.released else lease

    def age(self) -> float:
        """Seconds since the current lease was renewed, by the clock of the file system, which
        stamps both files that are compared."""
        file, now = self._folder / f".{os.getpid()}.now", time.time()
        with contextlib.suppress(OSError):
            file.touch()
            now = file.stat().st_mtime
            file.unlink()
        try:
            return max(0.0, now - self._path(self.highest()).stat().st_mtime)
        except OSError:
            return 0.0

    def take(self, **what: object) -> HeldLease | None:
        """Take the lease if it is free, and say ``what`` (fields of :class:`Lease`); None where
        somebody else is at work.

        Raises ``FailedError`` where the disk refuses.
        """
        number = self.highest()
        if number and not self._is_free(number, self._read(number)):
            return None
        now = utc(datetime.now(UTC))
        lease = msgspec.structs.replace(Lease(owner=self._owner, taken=now), **what)
        mine = number + 1
        if not create_atomically(self._path(mine), msgspec.json.encode(lease), durable=False):
            return None
        if self.highest() != mine:
            # It was judged by a lease of long ago, whose successors have come and gone.
            self._path(mine).unlink(missing_ok=True)
            return None
        for older in self._numbers():
            if older < mine:
                self._path(older).unlink(missing_ok=True)
        _held.add(self.key)
        return HeldLease(self, mine, lease)

    def write(self, number: int, lease: Lease) -> None:
        """Write the content of a lease that is held."""
        write_atomically(self._path(number), msgspec.json.encode(lease), durable=False)

    def _is_free(self, number: int, lease: Lease) -> bool:
        if self.key in _held:
            return False
        alive = is_alive(lease.owner)
        if lease.released or lease.owner == self._owner or alive is False:
            return True
        seen = (number, lease.beats)
        if self._seen is None or self._seen[:2] != seen:
            self._seen = (*seen, time.monotonic())
        return alive is None and time.monotonic() - self._seen[2] > SILENT_SECONDS

    def _read(self, number: int) -> Lease:
        try:
            return msgspec.json.decode(read_bounded(self._path(number), follow=False), type=Lease)
        except (FailedError, msgspec.DecodeError, ValueError, RecursionError):
            return UNREADABLE

    def _path(self, number: int) -> Path:
        return self._folder / str(number)

    def _numbers(self) -> list[int]:
        try:
            return [int(name) for name in os.listdir(self._folder) if name.isdecimal()]
        except OSError:
            return []


@cache
def _this_boot() -> str:
    """What tells this machine, since it was started, from every other; in a container its processes
    from those outside."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        names = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot, names = f"{platform.node()} {psutil.boot_time():.0f}", ""
    return hashlib.sha256(f"{boot} {names}".encode()).hexdigest()[:12]


def _started(process: int) -> str | None:
    """What tells the process of this number from a later one; "" where it may not be looked at,
    None where there is none."""
    try:
        if not sys.platform.startswith("linux"):
            return f"{psutil.Process(process).create_time():.0f}"
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        state, *fields = text.rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]
    except psutil.AccessDenied:
        return ""
    except psutil.Error:
        return None
    except (OSError, IndexError):
        # Hidden from this user, it can be there all the same.
        try:
            os.kill(process, 0)
        except PermissionError:
            return ""
        except OSError:
            return None
        return ""
