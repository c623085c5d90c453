"""The verdict on every claim, machine by machine, from the evidence alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from equivbench.records.curves import FINALS, ResultWeights
from equivbench.studies.claims.analyses import easier, follows
from equivbench.studies.claims.contests import costs_little, wins_per_hour
from equivbench.studies.claims.evidence import Evidence, MachineEvidence
from equivbench.studies.claims.findings import ClaimFinding, ClaimPart, total
from equivbench.studies.claims.shares import AXES, falls_early, whatever_the_size
from equivbench.studies.claims.statements import CLAIMS, Claim

_PARTS: Mapping[str, Callable[[MachineEvidence, ResultWeights], list[ClaimPart]]] = {
    "C1": falls_early,
    "C2": whatever_the_size,
    "C3": easier,
    "C4": costs_little,
    "C5": wins_per_hour,
    "C6": follows,
}
NOTHING = "There are no runs; `equivbench reproduce` makes them"


def judge(evidence: Evidence, claims: Sequence[Claim] = CLAIMS) -> list[ClaimFinding]:
    """A finding for each of ``claims`` on each machine and preset about each kind of weights, in
    this order; without evidence one for each claim that says so."""
    if not evidence.machines:
        return [
            ClaimFinding(each.id, "annealed", None, None, None, "not measured", NOTHING)
            for each in claims
        ]
    return [
        _finding(each, machine, weights)
        for each in claims
        for machine in evidence.machines
        for weights in FINALS
    ]


def _finding(claim: Claim, machine: MachineEvidence, weights: ResultWeights) -> ClaimFinding:
    parts = tuple(
        replace(part, published=claim.published.get(part.task, ""))
        for part in _PARTS[claim.id](machine, weights)
    )
    verdict, reason, as_published = total(claim, parts)
    if claim.id == "C2" and verdict == "held":
        # The claim is about size and data: one of them alone does not make it.
        held = {part.pair.rpartition(", ")[2] for part in parts if part.verdict == "held"}
        lacking = sorted(set(AXES) - held)
        if lacking:
            verdict, reason = "not measured", f"Nothing decided on {lacking[0]}. {reason}"
    if not parts:
        reason = claim.never.get(weights, f"No such records: {claim.suffices}")
    return ClaimFinding(
        claim=claim.id,
        weights=weights,
        machine_key=machine.machine_key,
        hardware=machine.hardware,
        preset=machine.preset,
        verdict=verdict,
        reason=reason,
        as_published=as_published,
        parts=parts,
    )
