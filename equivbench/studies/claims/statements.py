"""The paper's claims in our words: what each says, what is measured for it, when it held, and what
its published curves show.

The rules are fixed here, and the verdicts follow from them and from records alone; :data:`ORIGIN`
says what was known when they were written. Numbers of the published curves were computed from its
public plotting data; none is quoted from its text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from equivbench.errors import unknown_name
from equivbench.gap.campaigns import LEAD_SEEDS
from equivbench.gap.matched import EXPLAINED
from equivbench.records.curves import ResultWeights

PAPER = (
    '"Training Dynamics of Learning 3D-Rotational Equivariance", arXiv 2512.02303 (TMLR 12/2025)'
)
CURVES = "its public plotting data, github.com/genentech/equivariance_learning, recomputed"
ORIGIN = (
    "The rules were not written blind. The shares of the first records stood in this project's "
    "documentation eight hours before the first rules did, and C1's first rule was changed to fit "
    "the shape of known curves. These are the second rules, fixed on 2026-11-29, when every "
    "verdict by the first was known; a run that began before that date was known to whoever wrote "
    "them, a later one was not, but repeats experiments whose outcome was. Two rules were mended "
    "on 2026-12-01: which of several campaigns counts, when the figures of all were known, and C3, "
    "which looked at one seed, before there was a landscape of these runs."
)
"""When the rules were written, and what was known then."""
CAMPAIGNS = (
    "Where contests of one setting are several campaigns, that one counts for every claim (for C3 "
    "of those with landscapes) which "
    f"is large enough for a verdict ({LEAD_SEEDS} seeds) and whose runs had their machine; then "
    "the one of more seeds, then the newest. The tables of the headline have all of them."
)
"""Which of several campaigns of one setting is judged."""
TASKS = ("forcefield", "flow", "voxel")
"""The paper's three tasks; its networks there: EScAIP, Proteina, VoxMol."""

SMALL_SHARE = 0.02
"""C1's bound on the equivariance error's share of the test loss."""
HORIZON = 10_000
"""Steps within which C1 says that the share falls."""
LEARNT = EXPLAINED[0]
"""A share is read where the loss is at least this part below that of the best predictor that knows
nothing of the input's shape: before that it is small because the predictions are."""
ROBUST_FACTOR = 2.0
"""C2: by how much a share may grow as the model or the data shrink and still count as the same."""
SMALL_PENALTY = 0.10
"""C4: an error of which symmetry makes up at most this part is one that symmetry cannot much
improve. The published curves lie on both sides of it."""
LANDSCAPE = 0.8
"""C3: least correlation of a slice with one of other samples, noise and rotations: above it more
than 0.8^2 = 64% of its variance belongs to the loss and not to the draw."""
TRACKS = 0.5
"""C6: a detrended correlation that is surely below this explains less than a quarter of the
variance: it does not track."""


@dataclass(frozen=True)
class Claim:
    """One claim, and the rule by which records decide it."""

    id: str
    title: str
    statement: str
    measured: str
    """What is measured."""
    suffices: str
    """Which records are enough for a verdict."""
    rule: str
    """When it held, when it did not, and what is left undecided."""
    as_published: str
    """The criterion that the paper's own figures suggest, which looks at no interval."""
    weak: str
    """What a sceptic would hold against the rule, or the evidence that is asked for."""
    published: Mapping[str, str]
    """What the published curves say when recomputed, by task, or ``all``."""
    every_task: bool = False
    """Whether the statement is about all of :data:`TASKS`, so that it held only where every pair of
    every one of them agrees; else it held on what was measured, and the finding says on what that
    is."""
    never: Mapping[ResultWeights, str] = field(default_factory=dict)
    """Weights for which no records can tell, with the reason in a sentence."""


_READABLE = (
    f"A share counts where the loss is, by its whole interval, at least {LEARNT:.0%} below that of "
    "the best predictor that sees no shape (zero, on flows the isotropic normal); the part below "
    "is called learned"
)
CLAIMS = (
    Claim(
        id="C1",
        title="The symmetry is learned early",
        statement="With rotation augmentation, the equivariance error falls to at most 2% of the "
        "held-out loss within 1,000 to 10,000 steps, on all three tasks.",
        measured="The augmented arm's share of the test error, mean over all finished seeds of "
        "every pair (its longest budget), at every rung (annealed) or point of the trace (raw, "
        f"EMA), with an interval over seeds and test groups. {_READABLE}.",
        suffices="runs of one pair per task that fall to 2%, or of 10,000 steps",
        rule="An evaluation is down where the whole interval of the share is at or below 2%, up "
        "where it is above. A crossing is an evaluation that is down after one that was up, within "
        "10,000 steps, or none that is up and a last one that is down. Held: a crossing; what the "
        "interval at the end says is added (an end state, a first crossing only, or not decided). "
        "Undecided: evaluations that are neither up nor down stand where the crossing would be. "
        "Did not hold: 10,000 steps and no crossing. A run that ends earlier above 2%, or with too "
        "little learned, is no measurement.",
        as_published="Held where the mean share is at or below 2% at any evaluation within 10,000 "
        "steps, whatever is learned there.",
        weak="Annealed results exist at a few budgets only, so an early crossing that is lost "
        "again is seen by raw and EMA weights alone; these end after 80% of the run. The seed of "
        'the first records on which the claim "did not hold" ended at 2.17%, with an interval of '
        "its own from 1.93% to 2.44%.",
        published={
            "forcefield": "5.0 / 0.096 / 0.20% at 1k / 5k / 10k steps, ends at 0.05 to 0.075%; "
            "crosses 2% with no force variance explained",
            "flow": "t=0.4: 2.1 / 0.20 / 0.19% at 1k / 5k / 10k steps; t=0.9: 1.6 / 7.4 / 17%; "
            "ends at 0.05% (t=0) to 6.5% (t=0.9)",
            "voxel": "87% at 729 steps, 1.5% at 6.6k, 10% at 43k (10% of the data); ends at 7 to "
            "20% and rises",
            "all": "true as a first crossing, not always as an end state",
        },
        every_task=True,
    ),
    Claim(
        id="C2",
        title="It does so whatever the size of model and data",
        statement="How small the equivariance error becomes depends little on the size of the "
        "model and on the amount of data.",
        measured="The augmented arm's share at the end of sweeps over the width (`--over size`) "
        "and over the training groups (`--over data`), against the same seeds of the pair as "
        "declared under the same budget.",
        suffices="two seeds and one further value on each axis, with enough learned at all of them",
        rule=f"A value harms where the share there is above 2% and more than {ROBUST_FACTOR:g} "
        "times that of the pair as declared, both by their whole 95% intervals; it is harmless "
        "where one of the two is wholly not so. Held: both axes measured, all values harmless. "
        "Did not hold: a value harms. Else undecided.",
        as_published=f"Held where the mean share is at most {ROBUST_FACTOR:g} times that of the "
        "pair as declared.",
        weak="A share falls as its denominator grows: in the first records the claim held on a "
        "quarter of the data because the total grew by 44%, while the equivariance error itself "
        "fell by 21%. The ratio of the equivariance errors stands beside and is not judged.",
        published={
            "forcefield": "50k / 5k / 500 structures end at 0.12 / 0.81 / 5.5%, the last rising",
            "flow": "1% of the data: up to 8%",
            "voxel": "111M / 28M / 7M parameters end at 12.6 / 20.4 / 20.4%",
        },
    ),
    Claim(
        id="C3",
        title="Equivariance is the easier task",
        statement="The loss landscape of the equivariance error is smoother and better "
        "conditioned than that of the rest of the error.",
        measured="Slices of both parts of the error along the Hessian's extreme eigenvectors at "
        "the augmented arm's trained weights, with samples, noise and rotations fixed and "
        "dropout off: the effective condition number (largest eigenvalue over the mean one), the "
        "condition of the quadratic fitted in the plane, and the roughness of what that fit "
        "leaves (1 is white noise, 0 a smooth shape). A slice counts where, for both parts, it "
        f"correlates at least {LANDSCAPE:g} with one of another draw. Annealed are the weights at "
        "the end of a run, raw those of a snapshot along it (`--step`), EMA their average "
        "(`--weights ema`).",
        suffices="a landscape, from equivbench analyze landscape; better, one of each of 3 seeds",
        rule="By the effective condition number of the slices that count, over all seeds of one "
        "campaign. Of two seeds or more: that of the equivariance error over the rest's, seed by "
        "seed. Held: the whole 95% interval of their geometric mean is below 1. Did not hold: it "
        "is above 1. Of one seed: held where that of the equivariance error is smaller by the "
        "whole intervals of the slice, did not hold where it is larger, and the verdict says that "
        "it is one seed's. Else undecided.",
        as_published="Held where a quadratic fits the equivariance error's slice better than the "
        "rest's (R2), on grids drawn anew at every point.",
        weak="A slice is of one step of one seed, and a verdict on one says nothing of others: the "
        "claim held on the first records by one landscape of one seed. Three seeds give a wide "
        "interval, which is over seeds alone. In-plane condition and roughness are not judged, and "
        "the correlation with another draw that decides whether a slice counts has no interval.",
        published={
            "forcefield": "L_equiv: quadratic fit R2 0.95, in-plane condition about 52; L_mean: "
            "R2 0.04",
            "flow": "L_equiv: quadratic fit R2 0.97, in-plane condition about 16; L_mean: R2 0.04",
            "all": "not shown: both L_mean grids are white noise, as if every point had drawn "
            "fresh rotations and noise",
        },
    ),
    Claim(
        id="C4",
        title="The penalty is small all along",
        statement="The part of the loss that a network pays for not being equivariant is small "
        "throughout training.",
        measured="The augmented arm's share where its loss is down to fixed levels (25, 50, 75, "
        "90% explained, the end of the worse arm) that every seed reaches, read off the curve "
        f"and never extrapolated. {_READABLE}. Beside it, how much of the difference between the "
        "arms' losses the symmetry error accounts for.",
        suffices="both arms of one pair per task, two seeds",
        rule=f"Held: at every level the share is at most {SMALL_PENALTY:.0%} by its whole 95% "
        "interval, on all three tasks. Did not hold: it is above by its whole interval at some "
        "level. Else undecided. This is about the symmetry error itself: the "
        "equivariant arm may lead by far more than it, and how much of that lead it makes up is "
        "shown.",
        as_published=f"Held where the mean share at the end is at most {SMALL_PENALTY:.0%}.",
        weak="Intervals are over seeds only, of which few give wide ones; levels that a seed does "
        "not reach are not read, so that a pair which learns little is judged early; and the share "
        "of an augmented arm that ends ahead is judged at the loss that both arms reach: that at "
        "its own end stands beside it and is not judged.",
        published={
            "forcefield": "share 2% at about no explained force variance, "
            "0.05 to 0.075% at the end",
            "flow": "about 3% of the t-weighted loss at the end, 6.5% at t=0.9",
            "voxel": "7 to 20% at the end and rising",
        },
        every_task=True,
    ),
    Claim(
        id="C5",
        title="Who wins per GPU-hour",
        statement="Plain networks trained with augmentation may therefore reach the lower test "
        "loss per GPU-hour, unless equivariant networks become more efficient.",
        measured="Both arms under one budget of device seconds, tuned alike, on the same test "
        "set: the ratio of their losses against the budget and the data fraction, and the budget "
        "at which the lead changes hands.",
        suffices=f"runs of both arms on a GPU, {LEAD_SEEDS} seeds",
        rule="Judged on a GPU only, at each pair's longest budget, by the lead that the gap "
        f"claims (at least {LEAD_SEEDS} seeds, Holm's correction over comparisons). Held: the "
        "augmented arm leads wherever one leads. Did not hold: an equivariant arm leads. A CPU's "
        "figures are shown as CPU time and decide nothing.",
        as_published="None: the paper measured nothing of the kind.",
        weak="The budget's result is annealed, and the lead of raw and EMA weights, which stop at "
        "80% of it, is corrected over no comparisons.",
        published={
            "all": "never measured: there is no wall-clock or equal-loss comparison with an "
            "equivariant model"
        },
    ),
    Claim(
        id="C6",
        title="What the share goes with",
        statement="The share follows the ratio of the gradient norms of its two parts, and the "
        "distance of the weights from symmetric ones.",
        measured="At snapshots along the augmented arm's runs: the ratio of the gradient norms "
        "of equivariance and twirled error (unbiased, from independent parts), the weights' "
        "deviation where a symmetric projection is known, and the correlation of each with the "
        "share in logarithms, raw and with the common trend over steps taken out. Snapshots hold "
        "raw weights and their average (`--weights ema`).",
        suffices="the gradients along the runs of two seeds of a pair, from equivbench analyze "
        "gradients",
        rule="Judged on the detrended correlation over all seeds, each with a trend of its own: "
        "two series that both fall correlate whatever they are. Held: it is above 0 by its whole "
        f"95% interval. Did not hold: its interval holds 0 and ends below {TRACKS:g}. Else, and "
        "with one seed only, undecided.",
        as_published="Held where the raw correlation is above 0.",
        weak="A seed has a dozen snapshots, neighbours of one curve and not independent. The "
        "interval counts them for fewer by their correlation with the next, which so few tell "
        "poorly: of unrelated series up to 12% are called related where it is strong. The trend "
        "that is taken out is a quadratic by choice. "
        "On the first records the claim held for a pair whose raw correlation was -0.52. Snapshots "
        "lie on the part of a run that is never annealed.",
        published={"all": "log-log correlations 0.2 to 0.95, most of it a shared trend in time"},
        never={
            "annealed": "No records can tell: gradients are taken along a run, where no weights "
            "are annealed"
        },
    ),
)


def claim(identity: str) -> Claim:
    """The claim called ``identity``, such as ``C5``; raises ``UsageError`` with the close matches
    for any other."""
    for each in CLAIMS:
        if each.id == identity.strip().upper():
            return each
    raise unknown_name("claim", identity, [each.id for each in CLAIMS])
