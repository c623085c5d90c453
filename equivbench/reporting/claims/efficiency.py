"""C5: which arm has the lower loss for the same device time. A CPU's hours are shown as what they are and decide nothing."""

from __future__ import annotations

from collections import defaultdict

from equivbench.analysis.gap import PairGap
from equivbench.analysis.pairing import AUGMENTED, EQUIVARIANT, Setting
from equivbench.analysis.quantities import Quantity
from equivbench.records.schema import RunRecord
from equivbench.reporting.claims.evidence import Scene
from equivbench.reporting.claims.findings import Part, Verdict, distinct, figure
from equivbench.reporting.claims.statements import Claim
from equivbench.reporting.gaps import headline, setting, show

DEFAULT_KERNELS = "torch"


def wins_per_hour(claim: Claim, scene: Scene) -> list[Part]:
    """A part for each pair and kernel backend, at its longest budget of device seconds."""
    alike: dict[str, list[PairGap]] = defaultdict(list)
    for gap in scene.gaps:
        if gap.budget["kind"] == "seconds":
            where = (gap.task, gap.pair, gap.dataset, gap.rules_version, sorted(gap.variant.items()), sorted(gap.kernels.items()))
            alike[repr(where)].append(gap)
    return [_part(claim, scene, max(gaps, key=lambda gap: float(gap.budget["limit"]))) for gaps in alike.values()]


def _part(claim: Claim, scene: Scene, gap: PairGap) -> Part:
    verdict, reason = _verdict(scene, gap)
    records = [record for record in scene.declared if _of(record, gap)]
    found = headline(gap)
    measured = [
        figure("budget of each arm", Quantity(gap.budget["limit"] / 3600), f"{scene.hardware}-hours"),
        figure("loss, equivariant over augmented", gap.loss_ratio),
        figure("seconds a sample, equivariant over augmented", gap.throughput_ratio.steady),
        figure("seeds", Quantity(float(gap.n_seeds)), note=f"{gap.n_diverged} diverged" if gap.n_diverged else ""),
    ]
    if found is not None:
        arm, s_star = found
        sure = "" if gap.behind is not None else "the intervals do not decide that it is behind"
        measured.append(figure(f"speed-up at which the {arm} arm would tie", s_star.steady, note=sure))
        measured.append(figure("the same with compilation", s_star.all_in))
    return Part(
        task=gap.task,
        pair=f"{gap.task}/{gap.pair}{_on(gap)}",
        subject=f"{gap.task}/{gap.pair}, {setting(gap)}",
        verdict=verdict,
        reason=reason,
        detail=f"{show(gap.loss_ratio)} at {gap.budget['limit']:g} {scene.hardware}-seconds, {_seeds(gap)}",
        measurements=tuple(measured),
        published=claim.published_on(gap.task),
        runs=distinct(record.run_id for record in records),
        commands=distinct(record.command for record in records),
    )


def _verdict(scene: Scene, gap: PairGap) -> tuple[Verdict, str]:
    if scene.hardware == "CPU":
        return "not measured", "no GPU-hours; on a CPU the loss of the equivariant arm over that of the augmented one"
    if gap.lead.arm is None:
        return "not measured", "no lead is claimed"
    return ("held" if gap.lead.arm == AUGMENTED else "did not hold"), f"the {gap.lead.arm} arm leads"


def _seeds(gap: PairGap) -> str:
    return f"{gap.n_seeds} seed{'s' * (gap.n_seeds != 1)}"


def _on(gap: PairGap) -> str:
    """The equivariant arm's kernels, where they are not the default ones."""
    return "" if gap.kernels[EQUIVARIANT] == DEFAULT_KERNELS else f" on {gap.kernels[EQUIVARIANT]}"


def _of(record: RunRecord, gap: PairGap) -> bool:
    """Whether ``gap`` rests on ``record``."""
    own = Setting.of(record)
    same = (own.task, own.pair, dict(own.variant), own.budget_kind, own.budget_limit, own.dataset_sha256)
    where = (gap.task, gap.pair, dict(gap.variant), gap.budget["kind"], gap.budget["limit"], gap.dataset["sha256"])
    alike = same == where and own.rules_version == gap.rules_version and record.seed in gap.seeds
    return alike and gap.kernels.get(record.arm) == record.model.kernels
