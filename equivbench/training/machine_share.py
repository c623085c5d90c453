"""What share of its machine a run got: the time in which its process did not run at all, the CPU
seconds and the load while it trained."""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from equivbench.records.schema import MachineShare, NotMeasured

_TICK = 0.1
"""Seconds between two signs of life of the process."""
_LATE = 0.4
"""A sign of life this much late means that the whole process was stopped. A busy machine lets a
thread that slept wait for some 0.05 s."""
_REFRESH = 1.0
"""Seconds after which the threads of the process are looked up again."""
_KEPT_STEPS = 20_000
_WORTH_SAYING = 5.0
"""CPU seconds a thread that nothing is said about: records and messages are written while a run is
paused, and each thread of OpenMP may spin for 0.2 s after a turn, of which a short budget has
many."""
_MOST_PAUSED = 0.2
"""CPU seconds while paused, as a part of those while not."""
_MOST_CORES = 1.25
"""Cores used on a CPU, as a multiple of the run's threads."""

COUNTERS = ("wall", "cpu", "switches", "steal", "jiffies", "throttled")


class ThreadTime(NamedTuple):
    """For how long a thread ran, and waited for a core."""

    ran: int
    waited: int


def held_by_others(threads: Sequence[ThreadTime], cores: int) -> int:
    """For how long a thread at least waited for cores that other processes held, at the most of all
    ``threads`` of this process, which may use so many ``cores``.

    A thread waits while all cores are taken. Its fellows take them all, together, no longer than
    those of them ran that are not among the ``cores`` - 1 that ran longest. So a rank of an arm
    whose threads share one core, the one that computes and those that pass tensors on, is not held
    up by others when they wait for each other.
    """
    ran, longest = sorted(each.ran for each in threads), 0
    # How many fellows of a thread are not among the cores - 1 that ran longest.
    others = max(0, len(threads) - cores)
    together = sum(ran[:others])
    for each in threads:
        # Of those, where it is one of the others itself, the next one takes its place.
        instead = ran[others] - each.ran if others and each.ran <= ran[others - 1] else 0
        longest = max(longest, each.waited - together - instead)
    return longest


class Stalls:
    """Seconds in which the process had work and did not run.

    Two kinds: the process was stopped (SIGSTOP, a frozen container), seen by a thread that wakes
    every 0.1 s; or its threads waited for a core that others held (Linux tells the seconds that
    each thread ran and waited; see :func:`held_by_others`). A suspended machine adds nothing, for
    the clock of the run stands still as well. The thread and the files that are read end with the
    last reference to the object.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = 0.0
        self._waited = 0.0
        self._counted: dict[int, ThreadTime] = {}
        self._files: dict[int, int] = {}
        self._looked = -_REFRESH
        self._seen = time.perf_counter()
        weakref.finalize(self, _close, self._files)
        threading.Thread(
            target=_tick, args=(weakref.ref(self),), name="equivbench-stalls", daemon=True
        ).start()
        self.taken()

    def taken(self) -> float:
        """Seconds stalled since the last call."""
        now = time.perf_counter()
        self._look(now)
        self._wait()
        with self._lock:
            stalled, self._stopped = self._stopped + self._waited, 0.0
        self._waited = 0.0
        return stalled

    def _look(self, now: float) -> None:
        """Sign of life: what is missing since the last one was a stop."""
        with self._lock:
            gap = now - self._seen
            if gap > _TICK + _LATE:
                self._stopped += gap - _TICK
            self._seen = max(self._seen, now)

    def _wait(self) -> None:
        """Add the seconds for which a thread has waited for cores that others held."""
        if not sys.platform.startswith("linux"):
            return
        if self._seen - self._looked >= _REFRESH:
            self._looked = self._seen
            self._open()
        since: list[ThreadTime] = []
        for thread, file in list(self._files.items()):
            try:
                ran, waited = map(int, os.pread(file, 64, 0).split()[:2])
            except (OSError, ValueError):  # the thread has ended
                os.close(self._files.pop(thread))
                continue
            before = self._counted.get(thread, ThreadTime(ran, waited))
            since.append(ThreadTime(ran - before.ran, waited - before.waited))
            self._counted[thread] = ThreadTime(ran, waited)
        self._waited += held_by_others(since, len(os.sched_getaffinity(0))) / 1e9

    def _open(self) -> None:
        for name in os.listdir("/proc/self/task"):
            if int(name) not in self._files:
                try:
                    self._files[int(name)] = os.open(
                        f"/proc/self/task/{name}/schedstat", os.O_RDONLY
                    )
                except OSError:  # the thread has ended, or the kernel keeps no such statistics
                    continue


def _tick(of: weakref.ref[Stalls]) -> None:
    """Signs of life, for as long as anybody asks for them."""
    while True:
        time.sleep(_TICK)
        stalls = of()
        if stalls is None:
            return
        stalls._look(time.perf_counter())
        del stalls


def _close(files: dict[int, int]) -> None:
    while files:
        os.close(files.popitem()[1])


class MachineMeter:
    """Sums up what the system counted while the run had the machine.

    ``counted`` are the sums of an earlier process of the same run, which are gone on with.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.counted = dict.fromkeys(COUNTERS, 0.0)
        self.load = 0.0
        """The highest load average seen, in runnable threads."""
        self.paused_cpu = 0.0
        """CPU seconds between the blocks, while the run did not have the machine."""
        self._steps: list[float] = []
        self._paused_at: float | None = None

    @contextmanager
    def metered(self) -> Iterator[None]:
        """Count the block."""
        before = _counters()
        if self._paused_at is not None:
            self.paused_cpu += before["cpu"] - self._paused_at
        try:
            yield
        finally:
            after = _counters()
            self._paused_at = after["cpu"]
            for name, value in after.items():
                self.counted[name] += value - before[name]
            if hasattr(os, "getloadavg"):
                self.load = max(self.load, os.getloadavg()[0])

    def work_aside(self, on_cpu: bool) -> str | None:
        """What CPU time says that the run did beside what it may: work while the other arm had the
        machine, and with ``on_cpu`` more than its threads can do. None if it did not."""
        counted, unsaid = self.counted, _WORTH_SAYING * self.threads
        if self.paused_cpu > unsaid + _MOST_PAUSED * counted["cpu"]:
            return (
                f"its process worked for {self.paused_cpu:.1f} CPU seconds while its clock was "
                f"paused (and for {counted['cpu']:.1f} while it ran); a model must not go on alone"
            )
        cores = counted["cpu"] / counted["wall"] if counted["wall"] else 0.0
        if on_cpu and counted["cpu"] > unsaid + _MOST_CORES * self.threads * counted["wall"]:
            return (
                f"its process used {cores:.1f} cores and the run was given {self.threads}; a model "
                "must start no threads"
            )
        return None

    def saw_step(self, seconds: float) -> None:
        """Take note of the ``seconds`` of one step, stalled ones included."""
        self._steps.append(seconds)
        if len(self._steps) > _KEPT_STEPS:
            del self._steps[::2]

    def restore(self, counted: Mapping[str, float]) -> None:
        """Go on from the sums of a checkpoint."""
        self.counted = {name: counted.get(name, 0.0) for name in COUNTERS}
        self.load = counted.get("load", 0.0)
        self.paused_cpu = counted.get("paused_cpu", 0.0)

    @property
    def facts(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {**self.counted, "load": self.load, "paused_cpu": self.paused_cpu}

    def share(self, stalled_seconds: float) -> MachineShare | NotMeasured:
        """What the record says."""
        counted = self.counted
        if not counted["wall"]:
            return NotMeasured("the run had no time on the machine")
        spread = None
        if len(self._steps) > 1:
            p10, p90 = np.quantile(self._steps, (0.1, 0.9))
            spread = float(p90 / p10) if p10 > 0 else None
        return MachineShare(
            cpu_share=counted["cpu"] / (counted["wall"] * self.threads),
            switches=counted["switches"] / counted["wall"],
            load=self.load if hasattr(os, "getloadavg") else None,
            steal=counted["steal"] / counted["jiffies"] if counted["jiffies"] else None,
            throttled_seconds=counted["throttled"],
            p90_over_p10=spread,
            stalled_seconds=stalled_seconds,
        )


def _counters() -> dict[str, float]:
    """What the system has counted so far; 0 for what it does not count."""
    found = dict.fromkeys(COUNTERS, 0.0)
    found["wall"], found["cpu"] = time.perf_counter(), time.process_time()
    try:
        import resource  # absent on Windows
    except ImportError:
        return found
    found["switches"] = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    try:
        fields = [
            int(field)
            for field in Path("/proc/stat").read_text(encoding="utf-8").split("\n")[0].split()[1:]
        ]
        # Guest time, the last two fields, is part of user time.
        found["jiffies"], found["steal"] = sum(fields[:8]), fields[7]
        lines = Path("/sys/fs/cgroup/cpu.stat").read_text(encoding="utf-8").split("\n")
        throttled = [line.split()[1] for line in lines if line.startswith("throttled_usec")]
        found["throttled"] = sum(int(usec) for usec in throttled) / 1e6
    except (OSError, ValueError, IndexError):
        pass
    return found
