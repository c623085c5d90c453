"""Frontiers of synthetic arms: exponents, the best size at each budget, and where laws cross."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from factories import make_run
from power_laws import law

from equivbench.gap.frontier import PairFrontier, frontiers, sensitivities
from equivbench.records.schema import GroupErrors, RunRecord
from equivbench.report.frontier import crossing_sentence, crossing_sentences

TAU = 0.5
LIMIT = 480.0
BUDGETS = [15.0, 30.0, 60.0, 120.0, 240.0, 480.0]
Loss = Callable[[float], float]


def runs(
    laws: dict[str, Loss],
    *,
    size: str | None = None,
    seeds: int = 3,
    noise: float = 0.0,
    generator: np.random.Generator | None = None,
    **more: object,
) -> list[RunRecord]:
    """Records of both arms at one size; the logarithms of every loss are apart by ``noise``."""
    steps = [round(each / TAU) for each in BUDGETS]
    records = []
    for seed in range(seeds):
        for arm, loss in laws.items():
            drawn = np.zeros(len(steps)) if generator is None else generator.normal(size=len(steps))
            factor = dict(zip(steps, np.exp(noise * drawn).tolist(), strict=True))
            label = {} if size is None else {"sweep": "size", "value": size}
            records.append(
                make_run(
                    arm,
                    lambda step, loss=loss, factor=factor: loss(step * TAU) * factor[round(step)],
                    steps,
                    tau=TAU,
                    seed=seed,
                    limit=LIMIT,
                    run_id=f"{arm}-{seed}-{size}",
                    variant=label,
                    **more,
                )
            )
    return records


def only(records: list[RunRecord]) -> PairFrontier:
    found = frontiers(records)
    assert not found.left_out
    (one,) = found.found
    return one


EQUIVARIANT, AUGMENTED = law(2.0, 0.3), law(6.0, 0.5)
CROSSING = 3.0 ** (1 / 0.2)
"""Equal where 2 t^-.3 = 6 t^-.5: at 243 s."""


def test_exponents_prefactors_and_the_crossing_are_those_of_the_laws() -> None:
    found = only(runs({"equivariant": EQUIVARIANT, "augmented": AUGMENTED}))
    one, other = (found.arms[arm].law for arm in ("equivariant", "augmented"))
    assert one.exponent.value == pytest.approx(0.3, abs=1e-3)
    assert other.exponent.value == pytest.approx(0.5, abs=1e-3)
    assert one.prefactor.value == pytest.approx(2.0, rel=1e-2)
    assert found.seconds == BUDGETS
    assert found.ahead == "augmented"
    assert found.crossing is not None
    assert found.crossing.seconds.value == pytest.approx(CROSSING, rel=1e-2)
    assert found.crossing.to == "augmented"
    assert not found.crossing.extrapolated


def test_a_crossing_beyond_the_largest_budget_says_so() -> None:
    found = only(runs({"equivariant": law(1.0, 0.3), "augmented": law(5.0, 0.5)}))
    assert found.ahead == "equivariant"
    assert found.crossing is not None
    assert found.crossing.extrapolated
    assert found.crossing.seconds.value == pytest.approx(5.0**5, rel=0.05)


def test_laws_that_do_not_cross_have_no_crossing() -> None:
    found = only(runs({"equivariant": law(1.0, 0.5), "augmented": law(2.0, 0.5)}))
    assert found.crossing is None
    assert found.ahead == "equivariant"


def by_seed(*laws: dict[str, Loss]) -> list[RunRecord]:
    """Of each seed the arms follow laws of their own."""
    return [
        record
        for seed, own in enumerate(laws)
        for record in runs(own, seeds=len(laws))
        if record.seed == seed
    ]


def test_it_is_said_in_how_many_seeds_the_laws_cross() -> None:
    apart = {"equivariant": law(1.0, 0.5), "augmented": law(2.0, 0.5)}
    everywhere = crossing_sentence(only(by_seed(apart, apart, apart)))
    assert everywhere.endswith("100 times 480 s, nor do those of any seed by itself (3 seeds).")
    # 2 t^-.6 is below t^-.5 from 2^10 = 1024 s on; the mean, 2 t^-.525, from 2^40 s on.
    crosses = {"equivariant": law(1.0, 0.5), "augmented": law(2.0, 0.6)}
    found = only(by_seed(apart, apart, apart, crosses))
    assert found.crossing is None
    assert found.crossing_seeds == [3]
    assert crossing_sentence(found).endswith(
        "100 times 480 s. Whether they cross is not decided: those of 1 of 4 seeds do."
    )


def test_a_seed_counts_as_crossing_only_where_it_crosses_to_the_same_arm() -> None:
    to_augmented = {"equivariant": EQUIVARIANT, "augmented": AUGMENTED}
    to_equivariant = {"equivariant": AUGMENTED, "augmented": EQUIVARIANT}
    found = only(by_seed(to_augmented, to_equivariant, to_augmented, to_augmented))
    assert found.crossing is not None
    assert found.crossing.to == "augmented"
    assert found.crossing.seconds.high is None
    assert found.crossing_seeds == [0, 2, 3]
    said = crossing_sentence(found)
    assert ", in 3 of 4 seeds; from there on" in said
    assert said.endswith("is not decided: those of 1 of 4 seeds do not, to that arm.")


def test_where_a_law_may_be_flat_nothing_is_decided() -> None:
    steep, flat = law(2.0, 0.3), law(2.0, 0.02)
    plain = (steep, flat, flat)
    found = only(by_seed(*({"equivariant": law(1.0, 0.5), "augmented": own} for own in plain)))
    assert found.crossing is None
    assert found.not_falling == ["augmented"]
    assert crossing_sentence(found).endswith(
        "Whether they cross is not decided: the exponent of the augmented arm is not surely above "
        "0."
    )


def test_no_two_sentences_on_a_pair_are_the_same() -> None:
    found = only(runs({"equivariant": EQUIVARIANT, "augmented": AUGMENTED}))
    fused = replace(found, kernels=dict.fromkeys(found.arms, "fused"))
    several = [
        found,
        fused,
        replace(found, machine_key="another-machine", dataset="another-set"),
        replace(found, dataset_sha256="f" * 64),
        replace(found, pair="other"),
    ]
    sentences = crossing_sentences(several)
    assert len(set(sentences)) == len(several)
    assert sentences[1].startswith("toy/pair on toy-set, kernels fused, toy-cpu-2t: ")
    assert sentences[3].partition(": ")[0].endswith(", 1000 training samples of ffffffffffff")
    assert sentences[4].startswith("toy/other: ")
    # A word for a mark in which they do not differ would be one too many.
    assert crossing_sentences([found, fused])[0].startswith("toy/pair on kernels default: ")


def test_each_budget_has_its_best_size() -> None:
    def narrow(seconds: float) -> float:
        return 2.0 * seconds**-0.2

    def wide(seconds: float) -> float:
        return 8.0 * seconds**-0.5

    # Equal at 4^(1/.3) = 102 s.
    records = runs({"equivariant": narrow, "augmented": narrow}, size="0.5")
    records += runs({"equivariant": wide, "augmented": narrow})
    found = only(records)
    assert found.tried == ["0.5", "1"]
    assert found.arms["equivariant"].sizes == ["0.5"] * 3 + ["1"] * 3
    assert found.arms["equivariant"].losses[0].value == pytest.approx(narrow(15.0))
    assert found.arms["equivariant"].losses[-1].value == pytest.approx(wide(480.0))
    assert found.arms["augmented"].sizes == ["0.5"] * 6


def test_intervals_hold_the_exponent_the_floor_and_the_crossing() -> None:
    generator = np.random.default_rng(1)
    trials, held = 40, {"exponent": 0, "floor": 0, "crossing": 0}
    floored: dict[str, Loss] = {
        "equivariant": lambda seconds: 0.1 + 2.0 * seconds**-0.6,
        "augmented": lambda seconds: 0.02 + 3.0 * seconds**-0.5,
    }
    # Where the two are equal, by bisection.
    low, high = 15.0, 48_000.0
    for _ in range(100):
        middle = math.sqrt(low * high)
        ahead = floored["equivariant"](middle) < floored["augmented"](middle)
        low, high = (middle, high) if ahead else (low, middle)
    for _ in range(trials):
        found = only(runs(floored, seeds=4, noise=0.02, generator=generator))
        fitted = found.arms["equivariant"].law
        held["exponent"] += fitted.exponent.low <= 0.6 <= fitted.exponent.high
        held["floor"] += fitted.floor.low <= 0.1 <= fitted.floor.high
        where = found.crossing.seconds if found.crossing else None
        held["crossing"] += where is not None and (
            (where.low or 0.0) <= low <= (where.high or math.inf)
        )
    # 95% of 40 is 38 with a standard deviation of 1.4; five of them below.
    assert all(each >= 31 for each in held.values()), held


def test_a_floor_at_its_bound_is_not_known_to_be_there() -> None:
    def steeper(seconds: float) -> float:
        return 2.0 * seconds**-0.3 * math.exp(-seconds / 1000)

    found = only(runs({"equivariant": steeper, "augmented": AUGMENTED}))
    floor = found.arms["equivariant"].law.floor
    assert (floor.value, floor.low, floor.high) == (0.0, 0.0, None)


def test_what_has_no_frontier_says_why() -> None:
    laws = {"equivariant": EQUIVARIANT, "augmented": AUGMENTED}
    (why,) = frontiers(runs(laws, budget={"kind": "steps"})).left_out
    assert "in steps and a frontier is over seconds; `equivbench run toy/pair --budget" in why
    few = runs(laws)
    for record in few:
        record.rungs = record.rungs[-2:]
    (why,) = frontiers(few).left_out
    assert "its arms have 2 budgets" in why
    assert "`equivbench run toy/pair --rungs 5` makes one" in why
    swept = runs(laws, seeds=1, size="2")
    for record in swept:
        record.seed = 7
    (why,) = frontiers([*runs(laws), *swept]).left_out
    assert "0 seeds" in why
    assert "`equivbench analyze sweep toy/pair --over size --values 1,2 --rungs 5`" in why
    assert not frontiers(runs({"equivariant": EQUIVARIANT})).found


def test_sizes_that_were_judged_on_other_groups_are_compared_without() -> None:
    wide = runs({"equivariant": law(8.0, 0.5), "augmented": law(8.0, 0.5)})
    for record in wide:
        for test in (*(rung.test for rung in record.rungs), record.final, record.final_on_part):
            assert test is not None
            test.groups = GroupErrors(
                weights=[1.0, 1.0],
                total=[0.5 * test.total, 1.5 * test.total],
                equivariance=[0.0, 0.0],
            )
    assert only(wide).arms["equivariant"].law.exponent.low is not None
    narrow = runs({"equivariant": law(2.0, 0.2), "augmented": law(2.0, 0.2)}, size="0.5")
    found = only([*narrow, *wide])
    assert found.arms["equivariant"].sizes == ["0.5"] * 3 + ["1"] * 3


def test_runs_of_another_day_are_said_not_to_count() -> None:
    laws = {"equivariant": EQUIVARIANT, "augmented": AUGMENTED}
    later = runs(laws, seeds=2, created="2026-02-02T03:04:05Z", contest="another")
    answer = frontiers([*runs(laws), *later])
    assert [found.seeds for found in answer.found] == [[0, 1, 2]]
    (said,) = answer.left_out
    assert said.endswith(
        "of 2 sets of runs of size 1, of another code or day, that of 2026-01-02 counts (3 seeds)"
    )


def test_runs_that_had_their_machine_count_before_more_runs_that_had_not() -> None:
    laws = {"equivariant": EQUIVARIANT, "augmented": AUGMENTED}
    waited = runs(laws, seeds=4, machine_share={"stalled_seconds": 100.0})
    quiet = runs(laws, created="2026-02-02T03:04:05Z", contest="another")
    answer = frontiers([*quiet, *waited])
    assert [found.seeds for found in answer.found] == [[0, 1, 2]]
    (said,) = answer.left_out
    assert said.endswith("that of 2026-02-02 counts (3 seeds)")


def test_a_law_that_disagrees_with_the_last_loss_says_so() -> None:
    found = only(runs({"equivariant": EQUIVARIANT, "augmented": AUGMENTED}))
    assert "from there on the augmented arm has the lower loss, up to" in crossing_sentence(found)
    upset = replace(found, ahead="equivariant")
    assert crossing_sentence(upset).endswith(
        "and put the augmented arm ahead from there on, but at 480 s it is the equivariant arm "
        "that has the lower loss."
    )
    assert found.crossing is not None
    beyond = replace(found, crossing=replace(found.crossing, extrapolated=True))
    said = "the augmented arm has the lower loss at 480 s, but not by the laws. These cross"
    assert said in crossing_sentence(beyond)


def test_sensitivities_are_derivatives() -> None:
    at = np.array([0.3, -1.0, 2.0])
    found = sensitivities(lambda x: np.array([np.sin(x[0]) * x[1], x[2] ** 2]), at)
    assert np.allclose(found[:, 0], [np.cos(0.3) * -1.0, np.sin(0.3), 0.0], atol=1e-6)
    assert np.allclose(found[:, 1], [0.0, 0.0, 4.0], atol=1e-6)
