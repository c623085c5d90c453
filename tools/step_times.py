"""Training steps of a pair's arms by the code of this checkout and by that of another revision, in
turn: how much faster they are, and how far their losses are apart.

    python tools/step_times.py PAIR --against REV [--kernels NAME] [--forces conservative]

Each side is a process of its own that keeps freed memory, as a worker does; both see the same
batches from the same seed. Of two neighbouring steps either side makes the first one as often as
the other. Prints for each arm the median time of a step of both, the median of the ratios of
neighbouring steps with their quartiles, and the relative difference of the training losses at the
first step, which is that of rounding, and at the last.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from equivbench.gate.worktrees import checked_out, commit_named, repository
from equivbench.registry import MODELS, PAIRS
from equivbench.request import DEFAULT_KERNELS

HERE = Path(__file__).resolve().parent
WARM = 5
"""Steps at the start that are not counted."""


class Step(NamedTuple):
    """What one training step took, and its loss."""

    seconds: float
    processor: float
    """Seconds that processors worked on it: beside other work the surer of the two."""
    loss: float


class Side:
    """The process that makes the steps of one arm with the package in the folder ``tree``."""

    def __init__(self, tree: Path, arm: str, options: argparse.Namespace) -> None:
        told = json.dumps({**vars(options), "arm": arm})
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "step_worker.py"), told],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": str(tree)},
        )
        package = Path(self._answer()["package"])
        if package != tree / "equivbench":
            raise SystemExit(f"the steps of {tree} would be made by {package}")

    def step(self) -> Step:
        """Make the next step."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._answer()
        return Step(*(float(answer[name]) for name in Step._fields))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _answer(self) -> dict[str, str]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a side ended without an answer; what it said stands above")
        answer: dict[str, str] = json.loads(line)
        return answer


def main() -> None:
    """Print what was found for each arm."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("pair", metavar="PAIR")
    parser.add_argument("--against", default="HEAD", metavar="REV")
    parser.add_argument("--arm", action="append", default=[])
    parser.add_argument("--kernels", default=DEFAULT_KERNELS)
    parser.add_argument("--forces", default=None)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    root = repository(HERE)
    commit = commit_named(root, options.against)
    with checked_out(root, {"before": commit}) as trees:
        for arm in PAIRS.get(options.pair).contestants:
            takes_kernels = options.kernels == DEFAULT_KERNELS or MODELS.get(arm.model).kernels
            if takes_kernels and arm.name in (options.arm or [arm.name]):
                before = Side(trees["before"].resolve(), arm.name, options)
                now = Side(root.resolve(), arm.name, options)
                show(f"{options.pair} {arm.name}, kernels {options.kernels}", before, now, options)


def show(title: str, before: Side, now: Side, options: argparse.Namespace) -> None:
    """Make the steps of both sides and print what they took."""
    taken: dict[Side, list[Step]] = {before: [], now: []}
    for number in range(WARM + options.steps):
        for side in (before, now) if number % 2 == 0 else (now, before):
            taken[side].append(side.step())
    for side in taken:
        side.close()
    pairs = list(zip(taken[before], taken[now], strict=True))
    print(f"{title}, {options.against} over now, {options.steps} steps:")
    for name in ("seconds", "processor"):
        old, new = ([1e3 * getattr(each, name) for each in taken[side][WARM:]] for side in taken)
        ratios = [one / other for one, other in zip(old, new, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(
            f"  {name}: {statistics.median(old):.2f} over {statistics.median(new):.2f} ms,"
            f" neighbours {middle:.3f} ({low:.3f} to {high:.3f})"
        )
    apart = [abs(other.loss - one.loss) / max(abs(one.loss), 1e-30) for one, other in pairs]
    print(
        f"  losses apart by {apart[0]:.1e} at the first step, {apart[-1]:.1e} at the last,"
        f" {max(apart):.1e} at most",
        flush=True,
    )


if __name__ == "__main__":
    main()
