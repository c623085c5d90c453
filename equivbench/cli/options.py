"""Options that several commands share, each with its one help text, and how seeds are read."""

from __future__ import annotations

from typing import Annotated

import typer

from equivbench.errors import UsageError

Arms = Annotated[
    list[str] | None,
    typer.Option("--arm", help="This arm instead of the pair's first two (may be repeated)."),
]
Seeds = Annotated[str | None, typer.Option(help="Seeds, e.g. 0,1,2 (default 0).")]
SeedCount = Annotated[int | None, typer.Option(help="As many seeds from 0 on.")]
Preset = Annotated[str, typer.Option(help="dev, small or paper.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads (default: the physical cores).")]
Forces = Annotated[
    str | None, typer.Option(help="direct, or conservative: the energy's gradient, in every arm.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


def parse_seeds(seeds: str | None, n_seeds: int | None) -> tuple[int, ...]:
    """Seeds of ``--seeds 0,1,2`` or ``--n-seeds 3``; (0,) if neither is given. Raises
    ``UsageError``."""
    if seeds is not None and n_seeds is not None:
        raise UsageError("--seeds and --n-seeds exclude each other; give one of them")
    if n_seeds is not None:
        if not 1 <= n_seeds <= 1000:
            raise UsageError(f"--n-seeds must be between 1 and 1000, not {n_seeds}")
        return tuple(range(n_seeds))
    try:
        return tuple(int(seed) for seed in seeds.split(",")) if seeds is not None else (0,)
    except ValueError:
        raise UsageError(
            f"cannot read the seeds {seeds!r}; write whole numbers such as 0,1,2"
        ) from None
