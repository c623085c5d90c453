"""Equal shares of the cores that this process may use, for contests side by side on one CPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from equivbench.counted import counted
from equivbench.environment import usable_cores
from equivbench.errors import FailedError


class CoreShare(NamedTuple):
    """One share: the numbers of its CPUs, to which a process can keep, and how many cores it is."""

    cpus: tuple[int, ...]
    """Empty where nobody says which CPUs are this process's own (a Slurm job without affinity, a
    container with a quota of CPU time): to keep to some would be to take another's."""
    cores: int


def core_shares(count: int) -> list[CoreShare]:
    """``count`` equal shares; cores that are left over belong to none. The hyper-threads of one
    core stay together.

    Raises ``FailedError`` where there are fewer cores than shares.
    """
    cores = _own_cores()
    usable = len(cores) or usable_cores()
    each = usable // count
    if not each:
        raise FailedError(
            f"{count} shares of the CPU are asked for and this process may use "
            f"{counted(usable, 'core')}; ask for fewer"
        )
    parts = [cores[number * each : (number + 1) * each] for number in range(count)]
    return [CoreShare(tuple(cpu for core in part for cpu in core), each) for part in parts]


def keep_to(cpus: list[int]) -> None:
    """Keep every thread of this process, and those to come, to ``cpus`` (none: wherever it may
    be).

    Raises ``FailedError`` where the system refuses: it would compute on cores of another.
    """
    if not cpus:
        return
    try:
        threads = [int(name) for name in os.listdir("/proc/self/task")]
    except OSError:
        threads = [0]
    for thread in threads:
        try:
            os.sched_setaffinity(thread, cpus)
        except ProcessLookupError:
            continue  # it has ended
        except OSError as error:
            raise FailedError(
                f"cannot keep to the cores {', '.join(map(str, cpus))}: {error.strerror}; "
                "run without --devices"
            ) from error


def _own_cores() -> list[tuple[int, ...]]:
    """The CPUs of each core that is this process's own, in order; none where nobody says which."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    mine = os.sched_getaffinity(0)
    if usable_cores() < len(mine):
        return []
    cores = {_siblings(cpu) & mine or frozenset({cpu}) for cpu in mine}
    return sorted(tuple(sorted(core)) for core in cores)


def _siblings(cpu: int) -> frozenset[int]:
    """The CPUs that are hyper-threads of one core with ``cpu``."""
    file = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    found: set[int] = set()
    try:
        for part in file.read_text(encoding="ascii").strip().split(","):
            first, _, last = part.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
    except (OSError, ValueError):
        return frozenset({cpu})
    return frozenset(found)
