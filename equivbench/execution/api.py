"""``equivbench.run``: the command ``equivbench run`` as a function."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from equivbench.errors import FailedError, InterruptedRunError
from equivbench.execution.executors import Callback, find_executor
from equivbench.execution.plan import make_plan
from equivbench.records.schema import RunRecord
from equivbench.request import RunRequest, options_of


def run(
    pair: str | Sequence[str] = (),
    budget: str | None = None,
    seeds: str | Sequence[int] | None = None,
    device: str = "auto",
    out: str | Path = "results",
    *,
    callback: Callback | None = None,
    **options: Any,
) -> list[RunRecord]:
    """Train the arms of a pair under one equal budget each, and record every arm and seed.

    It takes every option of ``equivbench run``, by the same name (:class:`RunRequest` lists them).
    The records are written below ``out`` too.

    Parameters
    ----------
    pair
        The pair, as ``task/pair``, or several. None given: the quick-start pair.
    budget
        The budget of each arm, such as ``60s`` or ``2000steps``. The default is the preset's.
    seeds
        The seeds, as numbers or as on the command line (``"0-5"``). The default is seed 0.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    out
        The results folder.
    callback
        Is told how the runs go.
    **options
        The other options: ``arms``, ``n_seeds``, ``preset``, ``threads``, ``kernels``, ``forces``,
        ``extend``, ``snapshots``, ``resume``, ``executor``. With ``dry_run=True`` the request is
        checked and nothing is trained.

    Returns
    -------
    list of RunRecord
        One for each arm and seed. A diverged arm is a record with that status.

    Raises
    ------
    UsageError
        For names, numbers and options that make no sense.
    FailedError
        Where a record could not be made; the others are on disk.
    InterruptedRunError
        After Ctrl-C; ``resume=True`` then goes on.
    """
    request = RunRequest.of(
        pairs=pair, budget=budget, seeds=seeds, device=device, out=out, **options
    )
    executor = find_executor(request.executor)
    plan = executor.resolve(make_plan(request))
    if request.dry_run:
        return []
    result = executor.run(plan, callback or Callback())
    if result.interrupted:
        raise InterruptedRunError(
            "the run was interrupted; its state is saved, resume=True goes on"
        )
    if result.failures:
        raise FailedError(
            f"{'; '.join(result.failures)}; resume=True goes on from the last checkpoints"
        )
    return [kept.record for kept in result.kept]


def _signature() -> inspect.Signature:
    """The signature of :func:`run` with every option of the request in the place of
    ``**options``."""
    own = inspect.signature(run)
    *given, _ = own.parameters.values()
    others = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=each.type
        )
        for name, each in options_of(RunRequest).items()
        if name != "pairs" and name not in own.parameters
    ]
    return own.replace(parameters=[*given, *others])


run.__signature__ = _signature()  # type: ignore[attr-defined]
