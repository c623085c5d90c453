"""The verdict on every claim, machine by machine, from the evidence alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from equivbench.studies.claims.easier import easier
from equivbench.studies.claims.efficiency import wins_per_hour
from equivbench.studies.claims.evidence import Evidence, MachineEvidence
from equivbench.studies.claims.falls import falls_early
from equivbench.studies.claims.findings import ClaimFinding, ClaimPart, ClaimVerdict, total
from equivbench.studies.claims.follows import follows
from equivbench.studies.claims.penalty import costs_little
from equivbench.studies.claims.sizes import AXES, whatever_the_size
from equivbench.studies.claims.statements import CLAIMS, Claim

_PARTS: dict[str, Callable[[Claim, MachineEvidence], list[ClaimPart]]] = {
    "C1": falls_early,
    "C2": whatever_the_size,
    "C3": easier,
    "C4": costs_little,
    "C5": wins_per_hour,
    "C6": follows,
}
NOTHING = "There are no runs; `equivbench reproduce` makes them"


def judge(evidence: Evidence, claims: Sequence[Claim] = CLAIMS) -> list[ClaimFinding]:
    """A finding for each of ``claims`` on each machine and preset, claims in order; without
    evidence one that says so."""
    if not evidence.machines:
        return [ClaimFinding(each.id, None, None, None, "not measured", NOTHING) for each in claims]
    return [_finding(each, machine) for each in claims for machine in evidence.machines]


def _finding(claim: Claim, machine: MachineEvidence) -> ClaimFinding:
    parts = _PARTS[claim.id](claim, machine)
    verdict, reason = (
        total(claim, parts) if parts else ("not measured", f"No such records: {claim.suffices}")
    )
    if claim.id == "C2" and verdict == "held":
        verdict, reason = _both_axes(parts, reason)
    return ClaimFinding(
        claim.id,
        machine.machine_key,
        machine.hardware,
        machine.preset,
        verdict,
        reason,
        tuple(parts),
    )


def _both_axes(parts: Sequence[ClaimPart], reason: str) -> tuple[ClaimVerdict, str]:
    """The claim is about size and data: one of them alone does not make it."""
    held = {part.pair.rpartition(", ")[2] for part in parts if part.verdict == "held"}
    lacking = sorted(set(AXES) - held)
    return (
        ("not measured", f"Nothing decided on {lacking[0]}. {reason}")
        if lacking
        else ("held", reason)
    )
