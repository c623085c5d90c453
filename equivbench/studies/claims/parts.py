"""What `equivbench reproduce` can be asked for, and what it gathers, as data: the runs and analyses
that each claim rests on, by default and in full."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import ClassVar, Literal

from equivbench.errors import UsageError, unknown_name
from equivbench.records.curves import FINALS, ResultWeights
from equivbench.request import (
    Request,
    RunRequest,
    option,
    read_seeds,
    same_option,
    write_seeds,
)
from equivbench.specs import Preset

DEFAULT_SEEDS, FULL_SEEDS = 3, 6
AnalysisKind = Literal["gradients", "landscape"]


@dataclass(frozen=True)
class EvidencePart:
    """A piece of evidence: runs of one pair, or an analysis of those that are trained as declared.

    Runs are as declared, with snapshots; or at points of a sweep or under a budget of their own,
    without.
    """

    claims: tuple[str, ...]
    """Those that need it (ids as in notes and ``equivbench.studies.claims``)."""
    pair: str
    arms: tuple[str, ...] = ()
    """None named: both contestants."""
    kind: Literal["runs"] | AnalysisKind = "runs"
    axis: str | None = None
    values: tuple[str, ...] = ()
    budget: str | None = None
    """None: the pair's, or the one that was asked for, which stands before this one too."""
    first_seed_only: bool = False
    weights: ResultWeights | None = None
    """Those that an analysis is of; runs are evaluated with all three."""

    @property
    def as_declared(self) -> bool:
        """Whether these are the runs that analyses are about."""
        return self.kind == "runs" and self.axis is None and self.budget is None

    @property
    def title(self) -> str:
        """``runs of forcefield/vector``, ``landscape of voxel/steerable, augmented, first
        seed, raw weights``."""
        of = "" if self.axis or self.budget else f"{self.kind} of "
        arms = f", {' and '.join(self.arms)}" if self.arms else ""
        budget = f", {self.budget}" if self.budget else ""
        points = f" at {self.axis} {', '.join(self.values)}" if self.axis else ""
        seed = ", first seed" if self.first_seed_only else ""
        weights = f", {self.weights} weights" if self.weights else ""
        return f"{of}{self.pair}{arms}{budget}{points}{seed}{weights}"


def _long(pair: str) -> EvidencePart:
    return EvidencePart(("C1",), pair, _LEARNING, budget="10000steps", first_seed_only=True)


def _gradients(*pairs: str) -> Iterator[EvidencePart]:
    """Along a run no weights are annealed."""
    of: tuple[ResultWeights, ...] = ("raw", "ema")
    for pair, weights in product(pairs, of):
        yield EvidencePart(("C6",), pair, _LEARNING, "gradients", weights=weights)


def _landscapes(*pairs: str, first_seed_only: bool = False) -> Iterator[EvidencePart]:
    for pair, weights in product(pairs, FINALS):
        yield EvidencePart(
            ("C3",),
            pair,
            _LEARNING,
            "landscape",
            first_seed_only=first_seed_only,
            weights=weights,
        )


_LEARNING = ("augmented",)
SWEPT = ("forcefield/vector", "flow/vector-head", "voxel/steerable")
"""One pair a task."""
REST = (
    "forcefield/tied-head",
    "forcefield/tensor-product",
    "forcefield/tensor-product-parameters",
    "forcefield/platonic",
    "forcefield/so2-convolution",
    "flow/frames",
    "voxel/octahedral",
)

DEFAULT: tuple[EvidencePart, ...] = (
    EvidencePart(("C1", "C2", "C3", "C4", "C5", "C6"), "forcefield/vector"),
    EvidencePart(("C1", "C3", "C4", "C5"), "flow/vector-head"),
    EvidencePart(("C1", "C3", "C4", "C5"), "voxel/steerable"),
    EvidencePart(("C1", "C4", "C5", "C6"), "forcefield/tied-head"),
    _long("forcefield/vector"),
    EvidencePart(("C2", "C5"), "forcefield/vector", axis="data", values=("0.25",)),
    EvidencePart(("C2",), "forcefield/vector", _LEARNING, axis="size", values=("0.5",)),
    *_gradients("forcefield/vector", "forcefield/tied-head"),
    *_landscapes(*SWEPT, first_seed_only=True),
)
"""One pair a task, the three-row head for parameter space, one run as long as the claim, a further
point of data and of size, and each analysis for every kind of weights that it can be had for;
landscapes, which take longest, of one seed."""
FULL: tuple[EvidencePart, ...] = (
    *(EvidencePart(("C1", "C2", "C3", "C4", "C5", "C6"), pair) for pair in SWEPT),
    *(EvidencePart(("C1", "C3", "C4", "C5", "C6"), pair) for pair in REST),
    *map(_long, (*SWEPT, *REST)),
    *(
        EvidencePart(("C2", "C5"), pair, axis="data", values=("0.1", "0.25", "0.5"))
        for pair in SWEPT
    ),
    *(EvidencePart(("C2",), pair, _LEARNING, axis="size", values=("0.5", "2")) for pair in SWEPT),
    *_gradients(*SWEPT, *REST),
    *_landscapes(*SWEPT, *REST),
)
"""Every built-in pair with both arms, wider sweeps on one pair a task, gradients and landscapes of
every pair and seed."""
CLAIMS = tuple(sorted({claim for part in DEFAULT for claim in part.claims}))


def chosen_parts(parts: Iterable[EvidencePart], claims: Iterable[str]) -> tuple[EvidencePart, ...]:
    """Those of ``parts`` that serve one of ``claims`` (none named: all); raises ``UsageError`` for
    a claim nobody makes."""
    parts, wanted = tuple(parts), tuple(claims)
    for claim in wanted:
        if claim not in CLAIMS:
            raise unknown_name("claim", claim, CLAIMS)
    return tuple(part for part in parts if not wanted or set(wanted) & set(part.claims))


def read_claims(text: str) -> tuple[str, ...]:
    """The ids in ``C1,C5``, in order and without repetitions; raises ``UsageError`` for others."""
    named = dict.fromkeys(word.strip().upper() for word in text.split(",") if word.strip())
    if not named:
        raise UsageError(f"no claims in {text!r}; name some of {','.join(CLAIMS)}")
    chosen_parts((), named)
    return tuple(named)


@dataclass(frozen=True, kw_only=True)
class ReproduceRequest(Request):
    """What ``equivbench reproduce`` is asked for; None takes the pair's or the machine's
    default."""

    program: ClassVar[tuple[str, ...]] = ("reproduce",)

    preset: Preset = option("small", "How large data, models and budgets are.")
    full: bool = option(False, "Gather all pairs, 6 seeds, wider sweeps and every landscape.")
    claims: tuple[str, ...] = option(
        (), "Gather only what these claims need, such as C1,C5.", read=read_claims, write=",".join
    )
    budget: str | None = option(
        None,
        "The budget of each arm of every pair, such as 60s, 5min or 2000steps. The default is the "
        "pair's.",
    )
    seeds: tuple[int, ...] | None = option(
        None,
        "The seeds, such as 0,1,2. The default is 0,1,2, with --full 0,1,2,3,4,5.",
        read=read_seeds,
        write=write_seeds,
    )
    n_seeds: int | None = option(None, "Train with this many seeds, from 0 on.")
    device: str = option("auto", "Where to compute: auto, cpu, cuda or cuda:N.")
    devices: tuple[str, ...] | None = same_option(RunRequest, "devices")
    threads: int | None = option(
        None, "How many CPU threads to use. The default is one for each physical core."
    )
    out: str = option("results", "The results folder.")
    dry_run: bool = option(False, "Say what each part will take, and stop.")
    report_only: bool = option(
        False, "Judge the claims on what is in the results folder; train nothing."
    )
    page: str | None = option(None, "Write the claims as a Markdown page into this file.")

    @property
    def chosen_seeds(self) -> tuple[int, ...]:
        """The seeds that are asked for; raises ``UsageError`` where they make no sense."""
        count = self.n_seeds
        if self.seeds is None and count is None:
            count = FULL_SEEDS if self.full else DEFAULT_SEEDS
        return RunRequest(seeds=self.seeds, n_seeds=count).chosen_seeds
