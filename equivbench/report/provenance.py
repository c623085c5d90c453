"""What is needed to make a shown number again: the runs that it rests on, their commands, code and
machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from equivbench.counted import counted
from equivbench.records.schema import Environment, RunRecord
from equivbench.report.text import printable


@dataclass(frozen=True)
class Provenance:
    """What is needed to make a number again. All text is printable, and distinct values are in the
    order of the runs."""

    run_ids: tuple[str, ...]
    commands: tuple[str, ...]
    """The distinct command lines; one command makes both arms and all seeds."""
    commits: tuple[str, ...]
    """Of the checkout, as git gives them, with ``-dirty`` where it had uncommitted changes; empty
    for an installed package."""
    first: str
    """When the first of the runs ended, and the ``last`` (UTC, ISO 8601)."""
    last: str
    device: str
    """The processor or GPU that was timed, its threads and its driver, as the records name them."""
    packages: tuple[str, ...]
    """``torch 2.11.0``; a package that changed its version between runs is there more than once."""


def provenance(runs: Sequence[RunRecord]) -> Provenance:
    """The provenance of what was made from ``runs``, at least one."""
    # What outlines share is looked at once.
    environments = {id(run.environment): run.environment for run in runs}.values()
    created = sorted(printable(run.created) for run in runs)
    return Provenance(
        run_ids=_distinct(run.run_id for run in runs),
        commands=_distinct(run.command for run in runs),
        commits=_distinct(
            run.git.commit + "-dirty" * bool(run.git.dirty) for run in runs if run.git.commit
        ),
        first=created[0],
        last=created[-1],
        device="; ".join(_distinct(map(_device, environments))),
        packages=_distinct(
            version
            for where in environments
            for version in (
                f"python {where.python}",
                *(f"{name} {number}" for name, number in where.packages.items()),
            )
        ),
    )


def _device(where: Environment) -> str:
    processor = f"{counted(where.threads, 'thread')} of {where.cpu}"
    if where.device == "cpu":
        return processor
    driver = f", driver {where.driver}" if where.driver else ""
    return f"{where.device}{driver}, with {processor}"


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(printable, texts)))
