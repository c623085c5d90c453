"""C1: that the share of the equivariance error falls early; and what a run has to have learned for
its share to say anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from equivbench.gap.intervals import Quantity, over_seeds
from equivbench.gap.pairing import ArmRun
from equivbench.records.schema import RunRecord, TracePoint
from equivbench.studies.claims.arms import AugmentedArm, augmented_arms, longest, part_of
from equivbench.studies.claims.evidence import MachineEvidence
from equivbench.studies.claims.findings import ClaimPart, ClaimVerdict, figure, missing, percent
from equivbench.studies.claims.statements import HORIZON, LEARNT, SMALL_SHARE, Claim


@dataclass(frozen=True)
class ShareFall:
    """How one seed's share went: ``crossed`` is the step of the first evaluation that it had come
    down at, None if it did not."""

    crossed: int | None
    steps: int
    end: float
    learned: float
    highest: float
    """Of the shares that can be read."""

    @property
    def state(self) -> str:
        """``settled`` (down, and down at the end), ``crossed`` (down, not at the end), ``never``,
        ``open`` or ``unlearned``."""
        if self.learned < LEARNT:
            return "unlearned"
        if self.crossed is not None:
            return "settled" if self.end <= SMALL_SHARE else "crossed"
        return "never" if self.steps >= HORIZON else "open"


def falls_early(claim: Claim, machine: MachineEvidence) -> list[ClaimPart]:
    """C1: a part for each pair, over the finished seeds of its augmented arm's longest setting."""
    return [_fall_part(claim, arm) for arm in longest(augmented_arms(machine.declared))]


def learned(record: RunRecord, total: float | None, explained: float | None) -> float:
    """How far a loss is below that of the best predictor that sees no shape, as a part of the
    latter; 0 where nobody knows.

    ``linear`` baselines do see the shape, so they are not among those.
    """
    blind = [loss for name, loss in record.baselines.items() if name != "linear" and loss > 0]
    if total is not None and blind:
        return 1 - total / min(blind)
    return explained or 0.0


def fall(run: ArmRun) -> ShareFall | None:
    """How the share of ``run`` went; None where it was never measured."""
    points = [(point, point.test.share) for point in run.trace()[0] if point.test.share is not None]
    if not points:
        return None
    # What comes before anything is learned says nothing, in either direction.
    readable = [(point.step, share) for point, share in points if _learned(run, point) >= LEARNT]
    last, end = points[-1]
    highest = max((share for _, share in readable), default=end)
    return ShareFall(
        _crossing([each for each in readable if each[0] <= HORIZON]),
        last.step,
        end,
        _learned(run, last),
        highest,
    )


def _crossing(readable: Sequence[tuple[int, float]]) -> int | None:
    """Of (step, share): the first step at or below the bound after one above it, or the very first
    if none is above."""
    above = False
    for step, share in readable:
        if above and share <= SMALL_SHARE:
            return step
        above = above or share > SMALL_SHARE
    return None if above or not readable else readable[0][0]


def _learned(run: ArmRun, point: TracePoint) -> float:
    return learned(run.record, point.test.total, point.test.explained)


def _fall_part(claim: Claim, arm: AugmentedArm) -> ClaimPart:
    falls = [each for each in map(fall, arm.runs.values()) if each is not None]
    states = {each.state for each in falls}
    end = over_seeds([each.end for each in falls])
    detail = (
        f"{_percent(end)} at {_steps(falls)} steps{_seeds(len(falls), arm.started)}"
        if falls
        else ""
    )
    verdict: ClaimVerdict = "not measured"
    if not falls:
        reason = "no finished seed has a share"
    elif "never" in states:
        verdict, reason = "did not hold", f"no fall to {SMALL_SHARE:.0%} within {HORIZON:,} steps"
    elif "unlearned" in states:
        reason = f"less than {LEARNT:.0%} is learned by the end, so the share says nothing yet"
    elif "open" in states:
        reason = f"ends above {SMALL_SHARE:.0%}, before {HORIZON:,} steps"
    elif "crossed" in states:
        verdict, reason = "held", "as a first crossing, not as an end state"
    else:
        verdict, reason = "held", f"at most {SMALL_SHARE:.0%} at the end too"
    crossings = [float(each.crossed) for each in falls if each.crossed is not None]
    came = len(crossings) == len(falls) and bool(falls)
    what = f"first evaluation that can be read, at or below {SMALL_SHARE:.0%}"
    measured = (
        percent("share at the end", end),
        percent("learned by the end", over_seeds([each.learned for each in falls])),
        percent("highest share once it can be read", over_seeds([each.highest for each in falls])),
        figure(what, over_seeds(crossings, geometric=True), "steps")
        if came
        else missing(what, f"reached by {len(crossings)} of {len(falls)} seeds", "steps"),
        figure(
            "length of the runs",
            over_seeds([float(each.steps) for each in falls], geometric=True),
            "steps",
        ),
    )
    return part_of(claim, arm, "", verdict, reason, detail, measured)


def _percent(quantity: Quantity) -> str:
    return "an unknown share" if quantity.value is None else f"{100 * quantity.value:.2g}%"


def _seeds(finished: int, started: int) -> str:
    return "" if finished == started else f", {finished} of {started} seeds"


def _steps(falls: Sequence[ShareFall]) -> str:
    low, high = min(each.steps for each in falls), max(each.steps for each in falls)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
