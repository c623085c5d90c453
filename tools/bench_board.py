"""How long the board takes: makes a folder of synthetic records, the same each time, and times
every format of the export.

    python tools/bench_board.py [RECORDS]

Prints wall seconds of the whole command in a fresh process, the best of three, and the size of what
came out. Records are those of ``results/`` in size: 12 evaluations, 100 test groups, 3 seeds an
arm, 2 arms a pair; one run in fifty failed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from equivbench.records.schema import (
    BudgetRecord,
    ClockRecord,
    GroupErrors,
    Rung,
    RunRecord,
    StepSeconds,
    Test,
    Throughput,
    TracePoint,
)
from equivbench.records.store import load_results, write_record
from equivbench.report.formats import FORMATS, PAGE

ROOT = Path(__file__).resolve().parent.parent
EVALUATIONS, GROUPS, SEEDS = 12, 100, 3
ARMS = ("equivariant", "augmented")
BUDGET_SECONDS = 60.0
FINALS = ("final", "final_on_part", "final_raw", "final_ema")
BASELINE = 10.0
"""Loss of the constant predictor."""
FAILED_EVERY = 50


def synthetic(template: RunRecord, number: int) -> RunRecord:
    """Record ``number``: a power law with noise over seeds and test groups, everything else as in
    ``template``."""
    rest, arm = divmod(number, len(ARMS))
    pair, seed = divmod(rest, SEEDS)
    generator = np.random.default_rng([pair, seed, arm])
    curve = np.random.default_rng([pair, arm]).uniform(
        [0.5, 0.3, 3.0], [2.0, 0.6, 9.0]
    )  # level, exponent, steps a second
    seconds = np.geomspace(1.2, BUDGET_SECONDS, EVALUATIONS) * generator.uniform(
        1.0, 1.002, EVALUATIONS
    )
    steps = np.maximum(1, (seconds * curve[2]).astype(int))
    mean = (
        curve[0]
        * (seconds / BUDGET_SECONDS) ** -curve[1]
        * np.exp(0.05 * generator.standard_normal())
    )
    weights = generator.integers(20, 60, GROUPS).astype(float)
    total = mean[:, None] * np.exp(0.3 * generator.standard_normal(GROUPS))
    total *= (mean * weights.sum() / (total @ weights))[:, None]
    share = 0.02 * seconds**-0.5 if ARMS[arm] == "augmented" else np.full(EVALUATIONS, 1e-13)
    tests = [
        Test(
            samples=400,
            rotations=2,
            objective=float(loss),
            total=float(loss),
            twirled=float(loss * (1 - part)),
            equivariance=float(loss * part),
            share=float(part),
            floor=1e-13,
            group="so3",
            explained=float(1 - loss / BASELINE),
            over_best_untrained=float(loss / BASELINE),
            by={},
            groups=GroupErrors(
                weights=weights.tolist(), total=each.tolist(), equivariance=(each * part).tolist()
            ),
        )
        for loss, part, each in zip(mean, share, total, strict=True)
    ]
    points = [
        {
            "step": int(step),
            "samples": int(step) * template.recipe.batch_size,
            "train_seconds": float(at),
            "test": test,
        }
        for step, at, test in zip(steps, seconds, tests, strict=True)
    ]
    trace = [TracePoint(**point, ema=point["test"]) for point in points]  # type: ignore[arg-type]
    rungs = [Rung(**point, budget=point["train_seconds"]) for point in points]  # type: ignore[arg-type]
    spent, samples = trace[-1].train_seconds, trace[-1].samples
    rate = samples / spent * generator.uniform(0.98, 1.02)
    step_seconds = template.recipe.batch_size / rate
    clock = ClockRecord(
        train=0.9 * spent,
        compile=0.0,
        data=0.1 * spent,
        rungs=0.2 * spent,
        stalled=0.0,
        evaluate=3.0,
        checkpoint=0.2,
        timing=2.0,
        other=0.1,
        wall=1.2 * spent + 5.3,
    )
    failed = number % FAILED_EVERY == FAILED_EVERY - 1
    return msgspec.structs.replace(
        template,
        run_id=f"small-60s-seed{seed}",
        status="failed" if failed else "completed",
        reason="synthetic failure" if failed else None,
        pair=f"pair-{pair:03d}",
        arm=ARMS[arm],
        seed=seed,
        command=f"equivbench run {template.task}/pair-{pair:03d} --n-seeds {SEEDS}",
        recipe=msgspec.structs.replace(
            template.recipe, augmentation="haar" if ARMS[arm] == "augmented" else "none"
        ),
        budget=BudgetRecord(
            kind="seconds", limit=BUDGET_SECONDS, spent=spent, overshoot=spent - BUDGET_SECONDS
        ),
        clock=clock,
        throughput=Throughput(
            samples_per_second=rate,
            step_seconds=StepSeconds(
                p10=0.9 * step_seconds, p50=step_seconds, p90=1.1 * step_seconds
            ),
            alternated_with=ARMS[1 - arm],
        ),
        steps=trace[-1].step,
        samples=samples,
        epochs=samples / template.dataset.sizes["train"],
        trace=trace[:-1],
        rungs=rungs,
        **dict.fromkeys(FINALS, None if failed else tests[-1]),
        reasons=template.reasons | dict.fromkeys(FINALS if failed else (), "synthetic failure"),
        baselines={"zero": BASELINE},
    )


def export_seconds(results: Path, name: str, out: Path) -> float:
    """Wall seconds of ``equivbench leaderboard export`` in a process of its own."""
    started = time.perf_counter()
    subprocess.run(
        [
            sys.executable,
            "-m",
            "equivbench",
            "leaderboard",
            "export",
            "--format",
            name,
            "--results",
            results,
            "--out",
            out,
        ],
        check=True,
    )
    return time.perf_counter() - started


def main(count: int) -> None:
    """Make ``count`` records and time every format."""
    template = load_results(ROOT / "results")[0]
    with tempfile.TemporaryDirectory() as folder:
        results, out = Path(folder) / "results", Path(folder) / "board"
        for number in range(count):
            write_record(synthetic(template, number), results)
        size = sum(file.stat().st_size for file in results.rglob("*.json"))
        print(f"{count} records, {size / 1e6:.0f} MB")
        for name in (*FORMATS, PAGE):
            best = min(export_seconds(results, name, out) for _ in range(3))
            print(f"{name:6s} {best:6.2f} s  {out.stat().st_size / 1e6:6.2f} MB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
