"""What ``equivbench ladder`` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from equivbench.execution.tune_request import TuneRequest
from equivbench.records.ladder import LEAST_SEEDS
from equivbench.request import (
    THREADS,
    Request,
    RunRequest,
    option,
    read_seeds,
    same_option,
    write_seeds,
)
from equivbench.specs import Preset

HEAD = "HEAD"
NOTHING = "none"


@dataclass(frozen=True, kw_only=True)
class LadderRequest(Request):
    """What ``equivbench ladder`` is asked for."""

    program: ClassVar[tuple[str, ...]] = ("ladder",)

    pair: str = same_option(TuneRequest, "pair")
    arms: tuple[str, ...] = option(
        (),
        "Measure this arm instead of the pair's first two. May be repeated.",
        flag="--arm",
        completes="arms",
    )
    seeds: tuple[int, ...] = option(
        tuple(range(LEAST_SEEDS)),
        f"The seeds, such as 0-5, which is the default. With fewer than {LEAST_SEEDS} an entry "
        "does not count.",
        read=read_seeds,
        write=write_seeds,
    )
    budget: str | None = option(
        None,
        "The budget of each run, in seconds: 60s, 5min. The default is twice that of the records "
        "that the target loss is from.",
    )
    commit: str = option(HEAD, "The commit that is measured.")
    against: str | None = option(
        None,
        "Run this commit beside it, or none; COMMIT@fused on that backend of kernels. The default "
        "is the entry below.",
        metavar="COMMIT|none",
    )
    why: str | None = option(
        None,
        "What was changed, in one sentence. The default is the first line of the commit's message.",
    )
    preset: Preset = same_option(RunRequest, "preset")
    kernels: str | None = same_option(RunRequest, "kernels")
    device: str = same_option(RunRequest, "device")
    threads: int | None = option(None, f"{THREADS}.")
    out: str = same_option(RunRequest, "out")
    dry_run: bool = same_option(RunRequest, "dry_run")
