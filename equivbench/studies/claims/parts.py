"""What `equivbench reproduce` can be asked for, and what it gathers, as data: the runs and analyses
that each claim rests on, by default and in full."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from equivbench.errors import UsageError, unknown_name
from equivbench.request import Request, RunRequest, option, read_seeds, write_seeds
from equivbench.specs import Preset

DEFAULT_SEEDS, FULL_SEEDS = 3, 6
AnalysisKind = Literal["gradients", "landscape"]


@dataclass(frozen=True)
class TrainingWork:
    """Runs of one pair: as declared, with snapshots; or at points of a sweep or under a budget of
    its own, without."""

    pair: str
    arms: tuple[str, ...] = ()
    """None named: both contestants."""
    axis: str | None = None
    values: tuple[str, ...] = ()
    budget: str | None = None
    """None: the pair's, or the one that was asked for, which stands before this one too."""
    first_seed_only: bool = False

    @property
    def as_declared(self) -> bool:
        """Whether these are the runs that analyses are about."""
        return self.axis is None and self.budget is None


@dataclass(frozen=True)
class AnalysisWork:
    """An analysis of the runs of one arm that the reproduction trains as declared."""

    kind: AnalysisKind
    pair: str
    arm: str = "augmented"
    first_seed_only: bool = False


@dataclass(frozen=True)
class EvidencePart:
    """A piece of evidence and the claims that need it (ids as in notes and
    ``equivbench.studies.claims``)."""

    title: str
    claims: tuple[str, ...]
    work: TrainingWork | AnalysisWork


def _runs(pair: str, *claims: str, arms: tuple[str, ...] = ()) -> EvidencePart:
    return EvidencePart(f"runs of {pair}{_of(arms)}", claims, TrainingWork(pair, arms))


def _sweep(
    pair: str, axis: str, values: tuple[str, ...], *claims: str, arms: tuple[str, ...] = ()
) -> EvidencePart:
    return EvidencePart(
        f"{pair}{_of(arms)} at {axis} {', '.join(values)}",
        claims,
        TrainingWork(pair, arms, axis, values),
    )


def _long(pair: str, budget: str, *claims: str) -> EvidencePart:
    work = TrainingWork(pair, ("augmented",), budget=budget, first_seed_only=True)
    return EvidencePart(f"{pair}, augmented, {budget}, first seed", claims, work)


def _gradients(pair: str) -> EvidencePart:
    return EvidencePart(f"gradients of {pair}, augmented", ("C6",), AnalysisWork("gradients", pair))


def _landscape(pair: str) -> EvidencePart:
    return EvidencePart(
        f"landscape of {pair}, augmented, first seed",
        ("C3",),
        AnalysisWork("landscape", pair, first_seed_only=True),
    )


def _of(arms: tuple[str, ...]) -> str:
    return f", {' and '.join(arms)}" if arms else ""


SWEPT = ("forcefield/vector", "flow/vector-head", "voxel/steerable")
"""One pair a task."""
REST = (
    "forcefield/tied-head",
    "forcefield/tensor-product",
    "forcefield/tensor-product-parameters",
    "flow/frames",
    "voxel/octahedral",
)

DEFAULT: tuple[EvidencePart, ...] = (
    _runs("forcefield/vector", "C1", "C2", "C3", "C4", "C5", "C6"),
    _runs("flow/vector-head", "C1", "C3", "C4", "C5"),
    _runs("voxel/steerable", "C1", "C3", "C4", "C5"),
    _runs("forcefield/tied-head", "C1", "C4", "C5", "C6"),
    _long("forcefield/vector", "10000steps", "C1"),
    _sweep("forcefield/vector", "data", ("0.25",), "C2", "C5"),
    _sweep("forcefield/vector", "size", ("0.5",), "C2", arms=("augmented",)),
    _gradients("forcefield/vector"),
    _gradients("forcefield/tied-head"),
    *(_landscape(pair) for pair in SWEPT),
)
"""One pair a task, the three-row head for parameter space, one run as long as the claim, a further
point of data and of size."""
FULL: tuple[EvidencePart, ...] = (
    *(_runs(pair, "C1", "C2", "C3", "C4", "C5", "C6") for pair in SWEPT),
    *(_runs(pair, "C1", "C3", "C4", "C5", "C6") for pair in REST),
    *(_long(pair, "10000steps", "C1") for pair in (*SWEPT, *REST)),
    *(_sweep(pair, "data", ("0.1", "0.25", "0.5"), "C2", "C5") for pair in SWEPT),
    *(_sweep(pair, "size", ("0.5", "2"), "C2", arms=("augmented",)) for pair in SWEPT),
    *(_gradients(pair) for pair in (*SWEPT, *REST)),
    *(_landscape(pair) for pair in (*SWEPT, *REST)),
)
"""Every built-in pair with both arms, wider sweeps on one pair a task, gradients and landscapes of
every pair."""
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
