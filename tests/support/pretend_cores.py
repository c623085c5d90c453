"""A machine with other cores than this one has."""

from __future__ import annotations

import os

import pytest

from equivbench.execution import shares


def machine(patch: pytest.MonkeyPatch, cores: int, siblings: int, usable: int | None = None) -> int:
    """Pretend so many cores, each of so many CPUs that are numbered apart; returns the CPUs."""
    cpus = cores * siblings
    patch.setattr(os, "sched_getaffinity", lambda _: set(range(cpus)), raising=False)
    patch.setattr(shares, "usable_cores", lambda: cpus if usable is None else usable)
    patch.setattr(shares, "_siblings", lambda cpu: frozenset(range(cpu % cores, cpus, cores)))
    return cpus
