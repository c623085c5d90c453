"""C6: that the share follows the gradients' ratio and the weights' deviation, beyond what two
falling curves have in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from equivbench.gap.intervals import Quantity
from equivbench.gap.pairing import AUGMENTED
from equivbench.studies.claims.evidence import MachineEvidence
from equivbench.studies.claims.findings import (
    ClaimPart,
    ClaimVerdict,
    above,
    distinct,
    figure,
    run_name,
)
from equivbench.studies.claims.statements import TRACKS, Claim
from equivbench.studies.gradients.record import Gradients
from equivbench.studies.gradients.trends import QUANTITIES, correlations
from equivbench.studies.gradients.ustatistics import ReasonedQuantity

FEWEST_SEEDS = 2
TITLES = {"ratio": "gradient-norm ratio", "deviation": "deviation of the weights"}


def follows(claim: Claim, machine: MachineEvidence) -> list[ClaimPart]:
    """A part for each pair and each of the two quantities that was measured on it, over all seeds
    of its augmented arm."""
    newest: dict[tuple[str, ...], Gradients] = {}
    for each in sorted(machine.gradients, key=lambda analysis: analysis.created):
        if each.arm == AUGMENTED and each.weights == "ema" and "sweep" not in each.variant:
            newest[
                each.task, each.pair, each.model, repr(sorted(each.variant.items())), each.run_id
            ] = each
    pairs: dict[tuple[str, ...], list[Gradients]] = defaultdict(list)
    for (*where, _), analysis in newest.items():
        pairs[tuple(where)].append(analysis)
    return [part for analyses in pairs.values() for part in _parts(claim, machine, analyses)]


def _parts(
    claim: Claim, machine: MachineEvidence, analyses: Sequence[Gradients]
) -> list[ClaimPart]:
    first = analyses[0]
    found = correlations(analyses)
    switches = [f"{name} {value}" for name, value in sorted(first.variant.items())]
    parts = []
    for quantity in QUANTITIES:
        if quantity == "deviation" and all(
            point.deviation is None for each in analyses for point in each.points
        ):
            continue
        raw, detrended = found[quantity], found[f"{quantity} detrended"]
        verdict, reason, detail = _verdict(len(analyses), raw, detrended)
        title = TITLES[quantity]
        parts.append(
            ClaimPart(
                task=first.task,
                pair=f"{first.task}/{first.pair}, {title}",
                subject=", ".join([f"{first.task}/{first.pair}", *switches, title]),
                verdict=verdict,
                reason=reason,
                detail=detail,
                measurements=(
                    figure(
                        f"correlation of the share with the {title}, raw",
                        raw.quantity,
                        note=raw.reason or "",
                    ),
                    figure(
                        f"correlation with the {title}, detrended",
                        detrended.quantity,
                        note=detrended.reason or "",
                    ),
                    figure("seeds", Quantity(float(len(analyses)))),
                    figure(
                        "snapshots", Quantity(float(sum(len(each.points) for each in analyses)))
                    ),
                ),
                published=claim.published_on(first.task),
                runs=distinct(map(run_name, analyses)),
                commands=distinct(
                    text
                    for each in analyses
                    for text in (machine.record_of(each).command, each.command)
                ),
            )
        )
    return parts


def _verdict(
    seeds: int, raw: ReasonedQuantity, detrended: ReasonedQuantity
) -> tuple[ClaimVerdict, str, str]:
    """The verdict, its reason and the figures behind it."""
    partial = detrended.quantity
    if partial.value is None or partial.low is None or partial.high is None:
        return "not measured", detrended.reason or "the detrended correlation has no interval", ""
    detail = f"{partial.value:.2f} ({partial.low:.2f} to {partial.high:.2f}) detrended"
    detail += "" if raw.quantity.value is None else f", {raw.quantity.value:.2f} raw"
    if seeds < FEWEST_SEEDS:
        return "not measured", "one seed is one curve, whatever its points", detail
    if above(partial, 0.0):
        return "held", "correlated beyond the common trend", detail
    if partial.high < TRACKS:
        return "did not hold", "not correlated beyond the common trend", detail
    return "not measured", "the interval does not decide", detail
