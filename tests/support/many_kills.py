"""Kill -9 one run many times, spread over its training, and compare its end with that of an
unbroken run.

    python tests/support/many_kills.py --pair forcefield/vector --arm augmented --budget 400steps
    --kills 20 --threads 2

Prints one line a kill and exits 0 if weights and curve are bit-identical and ``restarts`` and
``lost_seconds`` are what the files that each kill left behind say they must be.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from running import Bench, lost_at, workers_of
from safetensors.numpy import load_file
from waiting import wait_for


def curve(record: dict[str, Any]) -> list[Any]:
    """All that training decides: seconds differ between runs, these must not."""
    trace = [[p["step"], p["samples"], p["test"], p["ema"]] for p in record["trace"]]
    rungs = [[r["step"], r["samples"], r["test"]] for r in record["rungs"]]
    ends = [record[name] for name in ("final", "final_on_part", "final_raw", "final_ema")]
    return [*trace, *rungs, *ends, record["steps"], record["samples"]]


def weights(folder: Path) -> dict[str, bytes]:
    """Every tensor of the checkpoint in a state folder."""
    return {
        name: array.tobytes()
        for name, array in load_file(folder / "checkpoint.safetensors").items()
    }


def kill_often(bench: Bench, command: tuple[str, ...], arm: str, steps: list[int]) -> float:
    """Run ``command`` with --resume until done, killed at each of ``steps``; returns the seconds
    that must be lost."""
    lost = 0.0
    for step in steps:
        process = bench.start(*command, "--resume")
        wait_for(lambda step=step: bench.furthest() >= step)
        for worker in workers_of(process, arm):
            worker.kill()
        ran = bench.finish(process)
        assert ran.code == 3, ran
        (folder,) = bench.states()
        at = lost_at(folder)
        lost += at
        print(f"killed at step {bench.furthest()}: {at:.3f} s lost", flush=True)
    return lost


def main() -> int:
    """Compare; 0 if all is as it must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair", default="forcefield/vector")
    parser.add_argument("--arm", default="augmented")
    parser.add_argument("--preset", default="dev")
    parser.add_argument("--budget", default="400steps")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--threads", default="1")
    chosen = parser.parse_args()
    command: tuple[str, ...] = (
        "run",
        chosen.pair,
        "--arm",
        chosen.arm,
        "--preset",
        chosen.preset,
        "--budget",
        chosen.budget,
    )
    command += ("--threads", chosen.threads, "--device", "cpu", "--quiet")
    limit = int(chosen.budget.removesuffix("steps"))
    steps = [round(limit * (0.1 + 0.8 * k / max(1, chosen.kills - 1))) for k in range(chosen.kills)]
    with tempfile.TemporaryDirectory() as scratch:
        whole, broken = Bench(Path(scratch) / "whole"), Bench(Path(scratch) / "broken")
        for bench in (whole, broken):
            bench.folder.mkdir()
        unbroken = whole(*command)
        assert unbroken.code == 0, unbroken
        lost = kill_often(broken, command, chosen.arm, steps)
        ended = broken(*command, "--resume")
        assert ended.code == 0, ended
        (expected,), (found,) = whole.records(), broken.records()
        checks = {
            "same curve": curve(found) == curve(expected),
            "same weights": weights(broken.states()[0]) == weights(whole.states()[0]),
            f"restarts {found['restarts']} = {len(steps)}": found["restarts"] == len(steps),
            f"lost_seconds {found['lost_seconds']:.3f} = {lost:.3f}": abs(
                found["lost_seconds"] - lost
            )
            < 1e-6,
        }
    for text, holds in checks.items():
        print("ok  " if holds else "FAIL", text)
    print({name: round(seconds, 3) for name, seconds in found["clock"].items()})
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
