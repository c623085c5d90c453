"""How often the intervals of the gap hold the truth, on made-up records whose truth is known, and
how often a lead is claimed that is not there.

``python -m equivbench.gap.simulation`` prints the table of docs/gap.md. Records go through
:func:`equivbench.gap.efficiency.efficiency_gap`, as those of runs do. Losses are power laws in the
steps; seeds differ in loss, from rung to rung and in speed, which is known from timed blocks alone;
test molecules differ in difficulty, some of it for one arm only. The augmented arm is extended, so
that it reaches the other.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from equivbench.gap.efficiency import PairGap, efficiency_gap
from equivbench.gap.intervals import Quantity
from equivbench.records.schema import RULES_VERSION, SCHEMA_VERSION, RunRecord
from equivbench.specs import CONTESTANTS

Array = NDArray[np.float64]
BUDGET = 60.0
RUNGS = 6
EXTENSION = 2
"""Doublings of the budget to which the augmented arm is extended: it is never ahead here."""
BLOCKS = 8
GROUPS = 60
TAU = {"equivariant": 0.06, "augmented": 0.03}
COMPILING = {"equivariant": 20.0, "augmented": 5.0}
"""Seconds."""
SEED_SPREAD = 0.05
"""Standard deviation over seeds of the log loss, each arm by itself."""
RUNG_SPREAD = 0.01
BLOCK_SPREAD = 0.05
GROUP_SPREAD = 0.5
"""Of the log difficulty of a test molecule, for both arms; a fifth of it again for each by
itself."""


@dataclass(frozen=True)
class Laws:
    """loss = prefactor * (seconds at the arm's mean speed) ** -exponent, for each arm."""

    name: str
    equivariant: tuple[float, float]
    augmented: tuple[float, float]

    @property
    def loss_ratio(self) -> float:
        """Equivariant over augmented at the budget."""
        (a, p), (c, q) = self.equivariant, self.augmented
        return float(a / c * BUDGET ** (q - p))

    @property
    def s_star(self) -> dict[str, float]:
        """The break-even speed-up of each arm: for the equivariant one
        (A/C)^(1/p) B^(q/p - 1)."""
        p, q = self.equivariant[1], self.augmented[1]
        return {
            "equivariant": self.loss_ratio ** (1 / p),
            "augmented": self.loss_ratio ** (-1 / q),
        }


SCENARIOS = (
    Laws("true tie", (4.0, 0.4), (4.0, 0.4)),
    Laws("20% ahead", (3.2, 0.4), (4.0, 0.4)),
    Laws("crossing", (8.0 * BUDGET**0.1, 0.5), (8.8 * BUDGET**-0.1, 0.3)),
    Laws("near-flat", (3.8, 0.05), (4.0, 0.05)),
)
SEEDS = (3, 6, 12)
SPEED_SPREADS = (0.0, 0.05, 0.1, 0.2)
"""Standard deviations of the log speed of a run, each arm by itself."""


@dataclass(frozen=True)
class Coverage:
    """Of so many trials: the part whose interval held the truth, by quantity, and the part in which
    the wrong arm, or in a tie any, was said to be behind."""

    laws: Laws
    seeds: int
    speed_spread: float
    covered: dict[str, float]
    false_verdicts: float


def simulate(laws: Laws, seeds: int, speed_spread: float, trials: int, seed: int = 0) -> Coverage:
    """The coverage over ``trials`` made-up contests; the same for the same arguments."""
    generator = np.random.default_rng(
        [seed, *laws.name.encode(), seeds, round(1000 * speed_spread)]
    )
    gaps = [
        efficiency_gap(made_up_records(laws, seeds, speed_spread, generator))[0]
        for _ in range(trials)
    ]
    true_speed = TAU["equivariant"] / TAU["augmented"]
    efficiency = laws.s_star["equivariant"] / true_speed
    whole = BUDGET + COMPILING["augmented"]
    truths = {
        "loss ratio": laws.loss_ratio,
        "s* equivariant": laws.s_star["equivariant"],
        "s* augmented": laws.s_star["augmented"],
        "sample efficiency": efficiency,
        "speed": true_speed,
        "speed all-in": (true_speed * BUDGET + COMPILING["equivariant"] / efficiency) / whole,
    }
    wrong = {*CONTESTANTS}
    if not math.isclose(laws.loss_ratio, 1):
        wrong = {"equivariant" if laws.loss_ratio < 1 else "augmented"}
    return Coverage(
        laws,
        seeds,
        speed_spread,
        {
            name: float(np.mean([_holds(_quantities(gap)[name], truth) for gap in gaps]))
            for name, truth in truths.items()
        },
        float(np.mean([gap.behind in wrong for gap in gaps])),
    )


def made_up_records(
    laws: Laws, seeds: int, speed_spread: float, generator: np.random.Generator
) -> list[RunRecord]:
    """The records of both arms of one contest a seed."""
    common = GROUP_SPREAD * generator.standard_normal(GROUPS)
    difficulties = {}
    for arm in CONTESTANTS:
        own = GROUP_SPREAD / 5 * generator.standard_normal(GROUPS)
        # Mean one over the population: E exp(s z) = exp(s^2 / 2).
        difficulties[arm] = np.exp(common + own - GROUP_SPREAD**2 * (1 + 1 / 25) / 2)
    records = []
    for seed in range(seeds):
        drift = BLOCK_SPREAD * generator.standard_normal(BLOCKS)
        for arm, (prefactor, exponent) in zip(
            CONTESTANTS, (laws.equivariant, laws.augmented), strict=True
        ):
            tau = TAU[arm] * math.exp(speed_spread * generator.standard_normal())
            noise = BLOCK_SPREAD / 2 * generator.standard_normal(BLOCKS)
            luck = SEED_SPREAD * generator.standard_normal()
            extended = EXTENSION if arm == "augmented" else 0
            wiggles = RUNG_SPREAD * generator.standard_normal(RUNGS + extended)
            steps = [max(1, round(BUDGET / tau * 2.0**k)) for k in range(1 - RUNGS, 1 + extended)]
            losses = [
                prefactor * (step * TAU[arm]) ** -exponent * math.exp(luck + wiggle)
                for step, wiggle in zip(steps, wiggles, strict=True)
            ]
            tests = [_test(loss * difficulties[arm]) for loss in losses]
            blocks = (tau * np.exp(drift + noise)).tolist()
            ends = {None: RUNGS} | ({BUDGET: len(steps)} if extended else {})
            records += [
                _record(arm, seed, steps[:end], tests[:end], tau, blocks, extends)
                for extends, end in ends.items()
            ]
    return records


def markdown(found: Iterable[Coverage], trials: int) -> Iterator[str]:
    """The lines of the table of docs/gap.md, each as soon as it is known."""
    yield from (f"95% intervals that hold the truth, percent of {trials} trials:", "")
    for place, row in enumerate(found):
        values = {**row.covered, "false verdicts": row.false_verdicts}
        if place == 0:
            yield f"| curves | seeds | sd of log speed | {' | '.join(values)} |"
            yield f"|---|---|---|{'---|' * len(values)}"
        cells = " | ".join(f"{100 * value:.1f}" for value in values.values())
        yield f"| {row.laws.name} | {row.seeds} | {row.speed_spread:g} | {cells} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m equivbench.gap.simulation", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--trials", type=int, default=1000, help="contests a row")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="seeds a contest")
    options = parser.parse_args(arguments)
    found = (
        simulate(laws, seeds, spread, options.trials)
        for laws in SCENARIOS
        for seeds in options.seeds
        for spread in SPEED_SPREADS
    )
    for line in markdown(found, options.trials):
        print(line, flush=True)


def _quantities(gap: PairGap) -> dict[str, Quantity]:
    return {
        "loss ratio": gap.loss_ratio,
        "s* equivariant": gap.s_star_equivariant.steady,
        "s* augmented": gap.s_star_augmented.steady,
        "sample efficiency": gap.sample_efficiency,
        "speed": gap.speed.steady,
        "speed all-in": gap.speed.all_in,
    }


def _holds(quantity: Quantity, truth: float) -> bool:
    return (quantity.low is None or quantity.low <= truth) and (
        quantity.high is None or truth <= quantity.high
    )


def _test(errors: Array) -> dict[str, Any]:
    """An evaluation in which each of the test groups has its error."""
    groups = {"weights": [1.0] * len(errors), "total": errors.tolist()}
    groups["equivariance"] = [0.0] * len(errors)
    unknown = ("objective", "floor", "explained", "over_best_untrained")
    total = float(errors.mean())
    return {
        **dict.fromkeys(unknown),
        "samples": len(errors),
        "rotations": 1,
        "total": total,
        "twirled": total,
        "equivariance": 0.0,
        "share": 0.0,
        "group": "so3",
        "by": {},
        "groups": groups,
    }


def _record(
    arm: str,
    seed: int,
    steps: list[int],
    tests: list[dict[str, Any]],
    tau: float,
    blocks: list[float],
    extends: float | None,
) -> RunRecord:
    """A record with these rungs, and otherwise with nothing in it that the gap reads."""
    limit = BUDGET * 2.0 ** (len(steps) - RUNGS)
    needed = (each.name for each in msgspec.structs.fields(RunRecord) if each.required)
    nothing: dict[str, Any] = dict.fromkeys(needed)
    clock = dict.fromkeys(("rungs", "evaluate", "checkpoint", "timing", "other", "stalled"), 0.0)
    rungs = [
        {
            "budget": limit / 2 ** (len(steps) - 1 - place),
            "step": step,
            "samples": step,
            "train_seconds": step * tau,
            "test": test,
        }
        for place, (step, test) in enumerate(zip(steps, tests, strict=True))
    ]
    return msgspec.convert(
        nothing
        | {
            "schema_version": SCHEMA_VERSION,
            "rules_version": RULES_VERSION,
            "run_id": f"seed{seed}-{arm}{'' if extends is None else '-extended'}",
            "created": "2026-01-01T00:00:00Z",
            "status": "completed",
            "preset": "made-up",
            "command": "",
            "task": "made-up",
            "pair": "laws",
            "arm": arm,
            "seed": seed,
            "contest": str(seed),
            "dataset": {"name": "made-up", "version": "", "sha256": "", "sizes": {}},
            "matching": {"what": "", "hardware": None, "target": "", "measured": {}},
            "model": {
                "name": "power law",
                "symmetry": "none",
                "symmetry_verified": None,
                "parameters": 2,
                "kernels": "none",
                "config": {},
            },
            "recipe": dict.fromkeys(("compile", "tuned_at", "tuning_log_sha256", "clip_norm"))
            | {
                "optimizer": "none",
                "learning_rate": 0.0,
                "batch_size": 1,
                "augmentation": "none",
                "precision": "float64",
                "ema": 0.0,
                "weight_decay": 0.0,
                "warmup_steps": 0,
            },
            "variant": {},
            "budget": {"kind": "seconds", "limit": limit, "spent": limit, "overshoot": 0.0}
            | {"extends": extends},
            "clock": clock
            | {"train": limit, "compile": COMPILING[arm], "data": 0.0}
            | {"wall": limit + COMPILING[arm]},
            "restarts": 0,
            "lost_seconds": 0.0,
            "steps": steps[-1],
            "samples": steps[-1],
            "epochs": 1.0,
            "throughput": {
                "samples_per_second": 1 / tau,
                "step_seconds": None,
                "blocks": blocks,
            },
            "inference": {"samples_per_second": None},
            "memory": {"peak_bytes": None},
            "rungs": rungs,
            "trace": [],
            "final": tests[-1],
            "final_on_part": tests[-1],
            "out_of_distribution": {},
            "environment": {
                "machine_key": "none",
                "device": "none",
                "driver": None,
                "cpu": "none",
                "threads": 1,
                "python": "",
                "packages": {},
            },
            "git": {"commit": None, "dirty": None},
            "reasons": {},
        },
        RunRecord,
    )


if __name__ == "__main__":
    main()
