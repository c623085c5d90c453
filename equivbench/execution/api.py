"""``equivbench.run``: the command ``equivbench run`` as a function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from equivbench.errors import FailedError, InterruptedRunError
from equivbench.execution.local import hold
from equivbench.execution.plan import RunRequest, make_plan
from equivbench.execution.watching import Nobody, Watcher
from equivbench.records.schema import RunRecord


def run(
    pair: str | Sequence[str],
    budget: str | None = None,
    seeds: Sequence[int] = (0,),
    device: str = "auto",
    out: str | Path = "results",
    *,
    preset: str = "small",
    arms: Sequence[str] = (),
    threads: int | None = None,
    kernels: str | None = None,
    forces: str | None = None,
    extend: float | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> list[RunRecord]:
    """Train the arms of ``pair`` (``task/pair``, or several) under one equal budget each and record
    every arm and seed.

    ``budget`` is as on the command line (``60s``, ``2000steps``; None: the pair's own); ``kernels``
    names the backend of the equivariant operations; ``watcher`` is shown how the runs go. The
    records are on disk below ``out`` too. A diverged arm is a record with that status. Raises
    ``UsageError`` for names and numbers that make no sense, ``FailedError`` where a record could
    not be made (the others are on disk), ``InterruptedRunError`` on Ctrl-C; ``resume=True`` then
    goes on.
    """
    request = RunRequest(
        pairs=(pair,) if isinstance(pair, str) else tuple(pair),
        arms=tuple(arms),
        budget=budget,
        seeds=tuple(seeds),
        preset=preset,
        device=device,
        threads=threads,
        kernels=kernels,
        forces=forces,
        extend=extend,
        out=str(out),
        resume=resume,
    )
    plan = make_plan(request)
    result = hold(plan, watcher or Nobody())
    if result.interrupted:
        raise InterruptedRunError(
            "the run was interrupted; its state is saved, resume=True goes on"
        )
    if result.failures:
        raise FailedError(
            f"{'; '.join(result.failures)}; resume=True goes on from the last checkpoints"
        )
    return [kept.record for kept in result.kept]
