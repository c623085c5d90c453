"""How long the commands on a folder of records take, and how much memory: makes a folder of
synthetic records, the same each time, and times `results validate`, `gap` and every format of the
board.

    python tools/bench_board.py [RECORDS] [--groups 100] [--only validate,gap,md]

Prints wall and CPU seconds of the whole command in a fresh process, its peak memory and the size of
what it printed, with an empty cache for the first command and again with what that left there.
Records are those of ``results/`` in size: 12 evaluations, 100 test groups, 3 seeds an arm, 2 arms a
pair; one run in fifty failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from equivbench.records.schema import (
    BudgetRecord,
    ClockRecord,
    GroupErrors,
    Inference,
    Rung,
    RunRecord,
    StepSeconds,
    Test,
    Throughput,
    TracePoint,
)
from equivbench.records.store import load_results, record_path
from equivbench.report.formats import ALL_FORMATS
from equivbench.specs import CONTESTANTS

ROOT = Path(__file__).resolve().parent.parent
SEEDS = 3
BUDGET_SECONDS = 60.0
FINALS = ("final", "final_on_part", "final_raw", "final_ema")
BASELINE = 10.0
"""Loss of the constant predictor."""
FAILED_EVERY = 50


def synthetic(template: RunRecord, number: int, groups: int, evaluations: int) -> RunRecord:
    """Record ``number``: a power law with noise over seeds and test groups, everything else as in
    ``template``."""
    rest, arm = divmod(number, len(CONTESTANTS))
    pair, seed = divmod(rest, SEEDS)
    generator = np.random.default_rng([pair, seed, arm])
    curve = np.random.default_rng([pair, arm]).uniform(
        [0.5, 0.3, 3.0], [2.0, 0.6, 9.0]
    )  # level, exponent, steps a second
    budgets = np.geomspace(1.2, BUDGET_SECONDS, evaluations)
    seconds = budgets * generator.uniform(1.0, 1.002, evaluations)
    steps = np.maximum(1, (seconds * curve[2]).astype(int))
    mean = (
        curve[0]
        * (seconds / BUDGET_SECONDS) ** -curve[1]
        * np.exp(0.05 * generator.standard_normal())
    )
    # The same test set for all.
    weights = np.random.default_rng(0).integers(20, 60, groups).astype(float)
    total = mean[:, None] * np.exp(0.3 * generator.standard_normal(groups))
    total *= (mean * weights.sum() / (total @ weights))[:, None]
    share = 0.02 * seconds**-0.5 if CONTESTANTS[arm] == "augmented" else np.full(evaluations, 1e-13)
    tests = [
        Test(
            samples=template.dataset.sizes["test"],
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
    rungs = [
        Rung(**point, budget=float(budget))  # type: ignore[arg-type]
        for point, budget in zip(points, budgets, strict=True)
    ]
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
        arm=CONTESTANTS[arm],
        seed=seed,
        command=f"equivbench run {template.task}/pair-{pair:03d} --n-seeds {SEEDS}",
        recipe=msgspec.structs.replace(
            template.recipe, augmentation="haar" if CONTESTANTS[arm] == "augmented" else "none"
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
            alternated_with=CONTESTANTS[1 - arm],
        ),
        inference=Inference(
            samples_per_second=3 * rate, twirl={str(n): 3 * rate / n for n in (2, 4, 8)}
        ),
        contest=f"{(template.contest or '')[:-8]}{rest:08x}",
        unit=None,
        devices=[],
        attempts=[],
        weights_sha256=None,
        machine_share=msgspec.structs.replace(template.machine_share, stalled_seconds=0.0)
        if template.machine_share
        else None,
        steps=trace[-1].step,
        samples=samples,
        epochs=samples / template.dataset.sizes["train"],
        trace=trace[:-1],
        rungs=rungs,
        **dict.fromkeys(FINALS, None if failed else tests[-1]),
        reasons=template.reasons | dict.fromkeys(FINALS if failed else (), "synthetic failure"),
        baselines={"zero": BASELINE},
    )


@dataclass(frozen=True)
class Spent:
    """What a command took in a process of its own."""

    seconds: float
    """Wall seconds."""
    cpu: float
    """CPU seconds of all its processes, which depend little on what else the machine does."""
    peak: float
    """MiB of memory, of the largest of its processes."""
    size: int
    """Bytes that it printed."""


def spent_by(arguments: Sequence[str], out: Path) -> Spent:
    """Run ``equivbench`` with ``arguments`` and write what it prints to ``out``."""
    started = time.perf_counter()
    with out.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "equivbench", *arguments], stdout=file)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with exit code {process.returncode}")
    return Spent(
        seconds=time.perf_counter() - started,
        cpu=usage.ru_utime + usage.ru_stime,
        peak=usage.ru_maxrss / 1024,
        size=out.stat().st_size,
    )


def fill(results: Path, count: int, groups: int, evaluations: int) -> int:
    """Write ``count`` records below ``results``, as bare JSON, and return their bytes."""
    template, size = load_results(ROOT / "results")[0], 0
    for number in range(count):
        record = synthetic(template, number, groups, evaluations)
        path = record_path(record, results)
        path.parent.mkdir(parents=True, exist_ok=True)
        size += path.write_bytes(msgspec.json.encode(record))
    return size


def main() -> None:
    """Make the records and time every command on them, the first time and again."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("records", type=int, nargs="?", default=1000)
    parser.add_argument("--groups", type=int, default=100, help="test groups of an evaluation")
    parser.add_argument("--evaluations", type=int, default=12, help="of a run, on its way")
    parser.add_argument("--only", help="commands, such as validate,gap,md (default: all)")
    options = parser.parse_args()
    exports = {
        name: ["leaderboard", "export", "--format", name, "--results"] for name in ALL_FORMATS
    }
    commands = {"validate": ["results", "validate"], "gap": ["gap"], **exports}
    chosen = options.only.split(",") if options.only else list(commands)
    with tempfile.TemporaryDirectory() as folder:
        results, out = Path(folder) / "results", Path(folder) / "board"
        os.environ["EQUIVBENCH_CACHE"] = str(Path(folder) / "cache")
        size = fill(results, options.records, options.groups, options.evaluations)
        print(f"{options.records} records, {size / 1e6:.0f} MB", flush=True)
        time.sleep(3)  # a file that has just been written may change within its own time
        for name in chosen:
            for which in ("first", "again"):
                one = spent_by([*commands[name], str(results)], out)
                print(
                    f"{name:8s} {which} {one.seconds:7.2f} s, CPU {one.cpu:7.2f} s, "
                    f"{one.peak:5.0f} MiB, {one.size / 1e6:6.2f} MB printed",
                    flush=True,
                )
        cache = Path(folder) / "cache"
        kept = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
        print(f"the cache has {kept / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
