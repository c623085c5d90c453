"""C3: that the equivariance error has the smoother and better conditioned landscape, from slices
that repeat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from equivbench.gap.intervals import Quantity
from equivbench.gap.pairing import AUGMENTED
from equivbench.studies.claims.evidence import MachineEvidence
from equivbench.studies.claims.findings import (
    ClaimFigure,
    ClaimPart,
    ClaimVerdict,
    figure,
    run_name,
)
from equivbench.studies.claims.statements import LANDSCAPE, ROUGHER, SMOOTH, Claim
from equivbench.studies.landscape.record import Curvature, Landscape
from equivbench.studies.record import Estimate

Sign = Literal["for", "against", "neither"]
_SHOWN = (("equivariance", "equivariance error"), ("twirled", "twirled error"))


def easier(claim: Claim, machine: MachineEvidence) -> list[ClaimPart]:
    """A part for each slice around an augmented arm's weights, the newest of each run, step, layers
    and directions."""
    newest: dict[tuple[str, ...], Landscape] = {}
    for each in sorted(machine.landscapes, key=lambda landscape: landscape.created):
        if each.arm == AUGMENTED and each.weights == "ema" and "sweep" not in each.variant:
            newest[each.task, each.pair, each.run_id, str(each.step), each.layers, each.along] = (
                each
            )
    return [_part(claim, machine, landscape) for landscape in newest.values()]


def signs(landscape: Landscape) -> dict[str, Sign]:
    """What each comparison of the two parts says of the equivariance error being the easier one."""
    equivariance, twirled = landscape.parts["equivariance"], landscape.parts["twirled"]
    return {
        "effective condition": _conditions(
            equivariance.effective_condition, twirled.effective_condition
        ),
        "in-plane condition": _planes(equivariance, twirled),
        "roughness": _roughness(equivariance.roughness, twirled.roughness),
    }


def _part(claim: Claim, machine: MachineEvidence, landscape: Landscape) -> ClaimPart:
    found = signs(landscape)
    verdict, reason, detail = _verdict(landscape, found)
    where = "all parameters" if landscape.layers == "*" else f"layers {landscape.layers}"
    pair = f"{landscape.task}/{landscape.pair}"
    record = machine.record_of(landscape)
    return ClaimPart(
        task=landscape.task,
        pair=pair,
        subject=f"{pair}, seed {landscape.seed}, step {landscape.step}, {where}, along the "
        f"{landscape.along} error",
        verdict=verdict,
        reason=reason,
        detail=detail,
        measurements=tuple(
            each for part, title in _SHOWN for each in _figures(landscape, part, title)
        ),
        published=claim.published_on(landscape.task),
        runs=(run_name(landscape),),
        commands=(record.command, landscape.command),
    )


def _verdict(landscape: Landscape, found: dict[str, Sign]) -> tuple[ClaimVerdict, str, str]:
    """The verdict, its reason and the figures behind it."""
    repeats = [landscape.parts[part].repeated for part, _ in _SHOWN]
    known = [each for each in repeats if each is not None]
    if len(known) < len(repeats):
        return "not measured", "without a repeat nobody knows what of the slice is noise", ""
    if min(known) < LANDSCAPE:
        return (
            "not measured",
            "the slice does not repeat: it is mostly the draw",
            f"correlation {min(known):.2f}",
        )
    against = [name for name, sign in found.items() if sign == "against"]
    supporting = [name for name, sign in found.items() if sign == "for"]
    detail = f"better in {_listed(supporting)}" if supporting else "better in nothing"
    if against:
        return (
            "did not hold",
            f"the equivariance error is the worse one in {_listed(against)}",
            detail,
        )
    if "effective condition" in supporting or "in-plane condition" in supporting:
        return "held", "the equivariance error is the worse one in nothing", detail
    return "not measured", "no condition numbers that could be told apart", ""


def _figures(landscape: Landscape, name: str, title: str) -> list[ClaimFigure]:
    part = landscape.parts[name]

    def shown(what: str, field: str, quantity: Quantity) -> ClaimFigure:
        return figure(
            f"{title}: {what}", quantity, note=landscape.reasons.get(f"parts.{name}.{field}", "")
        )

    fresh = figure(
        f"{title}: quadratic fit R2, drawn anew at every point",
        Quantity(part.fresh_r2),
        note="as published; not judged",
    )
    return [
        shown("effective condition", "effective_condition", _quantity(part.effective_condition)),
        shown("in-plane condition", "in_plane_condition", Quantity(part.in_plane_condition)),
        shown("roughness", "roughness", Quantity(part.roughness)),
        shown("quadratic fit R2, everything fixed", "quadratic_r2", Quantity(part.quadratic_r2)),
        fresh,
        shown("correlation with another draw", "repeated", Quantity(part.repeated)),
    ]


def _conditions(first: Estimate, second: Estimate) -> Sign:
    """By whole intervals: an end that is open overlaps with everything beyond it."""
    if first.high is not None and second.low is not None and first.high < second.low:
        return "for"
    if first.low is not None and second.high is not None and first.low > second.high:
        return "against"
    return "neither"


def _planes(first: Curvature, second: Curvature) -> Sign:
    """A bowl is better than a saddle; two saddles have no condition to compare."""
    own, other = first.in_plane_condition, second.in_plane_condition
    if own is None or other is None:
        if (own is None and other is None) or len(first.in_plane) < 2 or len(second.in_plane) < 2:
            return "neither"
        return "against" if own is None else "for"
    return "for" if own < other else "against" if own > other else "neither"


def _roughness(first: float | None, second: float | None) -> Sign:
    if first is None or second is None or max(first, second) < SMOOTH:
        return "neither"
    return (
        "for" if ROUGHER * first < second else "against" if first > ROUGHER * second else "neither"
    )


def _quantity(estimate: Estimate) -> Quantity:
    return Quantity(estimate.value, estimate.low, estimate.high)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)
