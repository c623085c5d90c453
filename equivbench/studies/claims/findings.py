"""What is found on a claim: figures with their intervals and runs, parts with a verdict each, and
how they add up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from equivbench.gap.intervals import Censored, Quantity
from equivbench.records.curves import ResultWeights
from equivbench.records.schema import Environment, RunRecord
from equivbench.studies.claims.statements import TASKS, Claim
from equivbench.studies.record import RunAnalysis

ClaimVerdict = Literal["held", "did not hold", "undecided", "not measured"]
VERDICTS: tuple[ClaimVerdict, ...] = ("held", "did not hold", "undecided", "not measured")
Hardware = Literal["CPU", "GPU"]
T = TypeVar("T")


@dataclass(frozen=True)
class ClaimFigure:
    """One figure: ``value`` with its 95% interval ``low`` to ``high``, in ``unit``; None with the
    reason in ``note``.

    ``censored`` says that the true value lies ``above`` or ``below``, and ``value`` is then the
    bound.
    """

    what: str
    value: float | None
    low: float | None
    high: float | None
    unit: str
    note: str = ""
    censored: Censored = None


@dataclass(frozen=True)
class ClaimPart:
    """What was found on one subject (a pair under its setting, an axis of a sweep, a slice)."""

    task: str
    pair: str
    """``task/pair``, with what tells it from other parts of the same pair."""
    subject: str
    """The pair under its whole setting."""
    verdict: ClaimVerdict
    reason: str
    """In words that parts with the same reason share."""
    as_published: ClaimVerdict
    """By the criterion that the paper's own figures suggest."""
    detail: str
    """The figures behind it, in short."""
    measurements: tuple[ClaimFigure, ...]
    published: str
    """What the published curves say of the same task; empty where they do not tell tasks apart."""
    runs: tuple[str, ...]
    """``task/pair/arm/run-id``: where the records lie below their machine's folder."""
    commands: tuple[str, ...]
    """What makes the records that this rests on, each once."""


@dataclass(frozen=True)
class ClaimFinding:
    """A claim about one kind of weights, on one machine under one preset; without a machine where
    there is no evidence at all."""

    claim: str
    weights: ResultWeights
    machine_key: str | None
    hardware: Hardware | None
    preset: str | None
    verdict: ClaimVerdict
    """By the rule, which looks at whole intervals."""
    reason: str
    """Where it held, on which tasks; where not, why; where nothing was measured, what is
    missing."""
    as_published: ClaimVerdict = "not measured"
    """By the criterion that the paper's own figures suggest."""
    parts: tuple[ClaimPart, ...] = ()

    @property
    def measurements(self) -> tuple[ClaimFigure, ...]:
        """The figures of all parts."""
        return tuple(each for part in self.parts for each in part.measurements)


def hardware_of(machine: Environment) -> Hardware:
    """What class of device trained there."""
    return "CPU" if machine.device.lower() == "cpu" else "GPU"


def decide(*rules: tuple[object, ClaimVerdict, T]) -> tuple[ClaimVerdict, T]:
    """Verdict and reason of the first of ``rules`` whose condition is true."""
    return next((verdict, reason) for holds, verdict, reason in rules if holds)


def figure(what: str, quantity: Quantity, unit: str = "", note: str = "") -> ClaimFigure:
    """``quantity`` as a measurement."""
    return ClaimFigure(
        what, quantity.value, quantity.low, quantity.high, unit, note, quantity.censored
    )


def percent(what: str, quantity: Quantity, note: str = "") -> ClaimFigure:
    """A fraction as a measurement in percent."""
    return figure(what, quantity.map(lambda value: 100 * value), "%", note)


def make_part(
    pair: tuple[str, str],
    label: str,
    setting: str,
    decided: tuple[ClaimVerdict, str],
    as_published: ClaimVerdict,
    detail: str,
    measurements: Iterable[ClaimFigure],
    sources: Iterable[RunRecord | RunAnalysis],
) -> ClaimPart:
    """A part on ``pair`` (task, pair), which ``label`` tells from others of the pair, resting on
    ``sources``."""
    name, sources = "/".join(pair), list(sources)
    return ClaimPart(
        task=pair[0],
        pair=name + label,
        subject=f"{name}{setting}",
        verdict=decided[0],
        reason=decided[1],
        as_published=as_published,
        detail=detail,
        measurements=tuple(measurements),
        published="",
        runs=distinct(f"{each.task}/{each.pair}/{each.arm}/{each.run_id}" for each in sources),
        commands=distinct(each.command for each in sources),
    )


def total(claim: Claim, parts: Sequence[ClaimPart]) -> tuple[ClaimVerdict, str, ClaimVerdict]:
    """The verdict on ``claim`` that its parts add up to, and why; and that by the criterion as
    published.

    One part that did not hold is enough against it. For it, a claim on every task needs every part
    of every task; another holds on what was decided, and the reason names that and what was not.
    """
    said = {
        verdict: _grouped(part for part in parts if part.verdict == verdict) for verdict in VERDICTS
    }
    absent = [task for task in TASKS if all(part.task != task for part in parts)]
    lacking = [*said["undecided"], *said["not measured"]]
    if absent:
        lacking.append(f"no evidence on {' and '.join(absent)}")
    against = [f"did not hold, {each}" for each in said["did not hold"]]
    held = [f"held, {each}" for each in said["held"]]
    verdict = _added(claim, [part.verdict for part in parts], absent)
    if verdict == "held":
        clauses = [*held, *lacking]
    else:
        clauses = [*against, *held, *lacking] if against else [*lacking, *held]
    reason = ". ".join(each[:1].upper() + each[1:] for each in clauses)
    return verdict, reason, _added(claim, [part.as_published for part in parts], absent)


def _added(claim: Claim, verdicts: Sequence[ClaimVerdict], absent: Sequence[str]) -> ClaimVerdict:
    whole = not absent and set(verdicts) == {"held"}
    return decide(
        ("did not hold" in verdicts, "did not hold", None),
        (whole or ("held" in verdicts and not claim.every_task), "held", None),
        ("undecided" in verdicts, "undecided", None),
        (True, "not measured", None),
    )[0]


def _grouped(parts: Iterable[ClaimPart]) -> list[str]:
    """A clause for each reason, with the pairs and figures that it is about."""
    reasons: dict[str, list[str]] = {}
    for part in parts:
        reasons.setdefault(part.reason, []).append(f"{part.pair} {part.detail}".rstrip())
    return [f"{reason}: {'; '.join(pairs)}" for reason, pairs in reasons.items()]


def within(quantity: Quantity, bound: float) -> bool:
    """Wholly at or below ``bound``."""
    return quantity.high is not None and quantity.high <= bound


def above(quantity: Quantity, bound: float) -> bool:
    """Wholly above ``bound``."""
    return quantity.low is not None and quantity.low > bound


def distinct(texts: Iterable[str]) -> tuple[str, ...]:
    """``texts`` in order, each once."""
    return tuple(dict.fromkeys(texts))
