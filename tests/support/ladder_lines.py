"""Runs whose loss is a power law of the steps, and entries of a ladder made of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from factories import make_run

from equivbench.gap.ladder import EntryFacts, logged, make_entry
from equivbench.gap.ladder_file import keep_entry
from equivbench.records.ladder import LadderEntry, LadderSide, LoggedRun
from equivbench.records.schema import Git, RunRecord
from equivbench.request import DEFAULT_KERNELS

TARGET = 0.25
STEPS = (25, 50, 100, 200, 400, 800)
SPREAD = (1.02, 0.97, 1.01, 0.99, 1.03, 0.98)
"""Of the seconds a step, by seed: what seeds of one code differ by."""
FIRST, SECOND, THIRD = ("a" * 40, "b" * 40, "c" * 40)


def ladder_run(
    commit: str, seed: int, tau: float = 0.1, scale: float = 5.0, kernels: str = DEFAULT_KERNELS
) -> RunRecord:
    """A run with the loss ``scale`` n^-1/2 after n steps of ``tau`` seconds: it comes down to
    ``TARGET`` after (``scale`` / ``TARGET``)^2 of them."""
    return make_run(
        "equivariant",
        lambda step: scale * step**-0.5,
        STEPS,
        tau=tau,
        seed=seed,
        limit=STEPS[-1] * tau,
        run_id=f"small-seed{seed}-{commit[:4]}-{tau:g}",
        model={"kernels": kernels},
        git={"commit": commit, "dirty": False, "tree": commit[::-1]},
    )


def ladder_log(
    commit: str, tau: float, seeds: int = 6, shift: int = 0, kernels: str = DEFAULT_KERNELS
) -> list[LoggedRun]:
    """The runs of a commit whose steps take ``tau`` seconds, give or take what seeds differ by;
    ``shift`` deals the differences out to other seeds."""
    return [
        logged(
            ladder_run(commit, seed, tau * SPREAD[(seed + shift) % len(SPREAD)], kernels=kernels)
        )
        for seed in range(seeds)
    ]


def ladder_entry(
    commit: str = FIRST,
    tau: float = 0.1,
    *,
    against: str | None = None,
    against_tau: float = 0.1,
    kernels: str = DEFAULT_KERNELS,
    seeds: int = 6,
    day: int = 1,
    **facts: Any,
) -> tuple[LadderEntry, bytes]:
    """The entry of ``commit`` on ``kernels``, and its log; ``against`` is run beside it, on the
    default ones."""
    runs: Sequence[LoggedRun] = ladder_log(commit, tau, seeds, kernels=kernels)
    if against is not None:
        runs = [*runs, *ladder_log(against, against_tau, seeds, shift=1)]
    known: dict[str, Any] = {
        "created": f"2026-01-{day:02}T00:00:00Z",
        "command": "equivbench ladder toy/pair",
        "budget": "80s",
        "target": TARGET,
        "change": f"steps of {tau:g} s",
        "git": Git(commit=commit, dirty=False),
        "kernels": kernels,
        "against": None if against is None else LadderSide(against, DEFAULT_KERNELS),
        "not_compared": None,
    }
    return make_entry(runs, EntryFacts(**{**known, **facts}))


def keep_ladder(results: Path) -> list[LadderEntry]:
    """Three entries in ``results``: the first, one in half its time, one that is no faster."""
    entries = [
        ladder_entry(),
        ladder_entry(SECOND, 0.05, against=FIRST, day=2),
        ladder_entry(THIRD, 0.0501, against=SECOND, against_tau=0.05, day=3),
    ]
    for entry, log in entries:
        keep_entry(entry, log, results)
    return [entry for entry, _ in entries]
