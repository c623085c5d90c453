"""Live experiments of the gate on this machine: identical code compared with itself, and code that
does a little more work.

    python tools/gate_null.py --out FOLDER [--sessions 5] [--rounds 10] [--seconds 0.2]
    [--plant PERCENT] [--only PATTERN ...]

Without --plant, HEAD is compared with HEAD; any regression or improvement is a false alarm. With
--plant, HEAD is compared with a scratch commit in which training steps, the plain operations'
forward pass and `list` take so many per cent longer, spinning in proportion to what they took.
Every session is kept in FOLDER for tools/gate_replay.py; a second call goes on where the first
stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from scipy.stats import binomtest

from equivbench.gate.compare import Judgement, compare
from equivbench.gate.interleave import interleave
from equivbench.gate.reading import read_side
from equivbench.gate.worktrees import InterleaveRequest

SPIN = """

import time as _time


def _spin(start: float) -> None:
    end = _time.perf_counter() + {share} * (_time.perf_counter() - start)
    while _time.perf_counter() < end:
        pass
"""
PLANTS = {
    "equivbench/training/steps.py": """
_plain_step = Steps.step


def _slower_step(self, clock, *rate_factor):
    start = _time.perf_counter()
    _plain_step(self, clock, *rate_factor)
    with clock.part("train", synchronize=False):
        _spin(start)


Steps.step = _slower_step
""",
    "equivbench/kernels/backends/plain/__init__.py": """
import dataclasses as _dataclasses

_plain_build = PlainTorch.build


def _slower_build(self, operation, **options):
    kernel = _plain_build(self, operation, **options)

    def run(inputs):
        start = _time.perf_counter()
        output = kernel.run(inputs)
        _spin(start)
        return output

    return _dataclasses.replace(kernel, run=run)


PlainTorch.build = _slower_build
""",
    "equivbench/cli/list.py": """
import atexit as _atexit

import psutil as _psutil

_age = lambda: _time.time() - _psutil.Process().create_time()
_atexit.register(lambda: _spin(_time.perf_counter() - _age()))
""",
}
PLANTED = ("* step", "* forward torch", "list-pairs")
"""Benchmarks that the planted work slows by the full share (of derivatives, only the forward pass
is slowed)."""


def git(folder: Path, *arguments: str) -> str:
    """What git prints; raises ``CalledProcessError``."""
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


@contextlib.contextmanager
def planted_commit(root: Path, percent: float) -> Iterator[str]:
    """A commit on top of HEAD, on no branch, whose code does ``percent`` more work."""
    with tempfile.TemporaryDirectory(prefix="equivbench-plant-") as folder:
        tree = Path(folder) / "tree"
        git(root, "worktree", "add", "--detach", "--quiet", str(tree), "HEAD")
        try:
            for name, code in PLANTS.items():
                with open(tree / name, "a") as file:
                    file.write(SPIN.format(share=percent / 100) + code)
            identity = (
                "-c",
                "user.name=gate",
                "-c",
                "user.email=gate@localhost",
                "-c",
                "core.hooksPath=/dev/null",
            )
            git(
                tree,
                *identity,
                "commit",
                "--quiet",
                "--no-gpg-sign",
                "-am",
                f"planted: {percent:g}% more work",
            )
            yield git(tree, "rev-parse", "HEAD")
        finally:
            git(root, "worktree", "remove", "--force", str(tree))


def judged(folder: Path) -> list[Judgement]:
    """The verdicts on a kept session, the control's left out."""
    sides = (read_side(folder / f"{name}.jsonl") for name in ("baseline", "candidate"))
    return [each for each in compare(*sides, thresholds={}) if not each.control]


def main() -> None:
    """Measure session by session, and print the rate with its 95% binomial bound after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sessions", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN")
    parser.add_argument("--plant", type=float, default=0.0, metavar="PERCENT")
    options = parser.parse_args()
    root = Path(__file__).resolve().parent.parent
    kind = f"plant-{options.plant:g}" if options.plant else "null"
    with (
        planted_commit(root, options.plant)
        if options.plant
        else contextlib.nullcontext("HEAD") as revision
    ):
        verdicts: Counter[str] = Counter()
        for number in range(options.sessions):
            folder, start = options.out / f"{kind}-{number}", time.monotonic()
            if not (folder / "candidate.jsonl").exists():
                request = InterleaveRequest(
                    "HEAD",
                    revision,
                    rounds=options.rounds,
                    seconds=options.seconds,
                    only=tuple(options.only) or (PLANTED if options.plant else ()),
                    allow_dirty=True,
                )
                interleave(
                    request,
                    progress=lambda line: print(line, file=sys.stderr, flush=True),
                    out=folder,
                )
            found = judged(folder)
            verdicts.update(each.verdict for each in found)
            counted = verdicts.total()
            wanted = verdicts["regression"] + (0 if options.plant else verdicts["improvement"])
            interval = binomtest(wanted, counted).proportion_ci(0.95, "exact")
            what = (
                f"found (at least {interval.low:.1%})"
                if options.plant
                else f"false alarms (at most {interval.high:.1%})"
            )
            took = f"{time.monotonic() - start:.0f} s"
            print(
                f"{folder.name}: {wanted} of {counted} {what}, {dict(verdicts)}, {took}", flush=True
            )
            for each in found:
                change = "" if each.change is None else f"{each.change:+.1%}"
                print(
                    f"  {each.verdict:12s} {change:>7s}  {each.benchmark}: {each.reason}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
