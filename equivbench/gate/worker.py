"""One round of one side: a fresh process that measures every benchmark of the revision it is
imported from (``python -m``).

Its command line and :class:`equivbench.gate.samples.RoundResult` are what revisions must share to
be compared.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

import equivbench
from equivbench.environment import environment
from equivbench.gate.benchmarks import BENCHMARKS, AbsentBenchmark, Benchmark, Round
from equivbench.gate.samples import RoundLine, RoundResult
from equivbench.records.files import write_atomically

PASSES = 3
"""Times that a round goes through all benchmarks: a disturbance of some seconds then meets only
part of each one's samples."""


def measure(benchmarks: Sequence[Benchmark], seconds: float) -> list[RoundLine]:
    """The least seconds a call of each benchmark, over ``seconds`` in ``PASSES`` passes.

    One that raises is reported with its problem, and one that cannot run on this machine is left
    out.
    """
    lines: dict[str, RoundLine] = {}
    ready: dict[str, Round] = {}
    for each in benchmarks:
        line = RoundLine(benchmark=each.name, version=each.version, control=each.control)
        lines[each.name] = line
        try:
            ready[each.name] = each.build()
        except AbsentBenchmark:
            del lines[each.name]
        except Exception as error:  # noqa: BLE001  the revision's own code may raise anything
            line.problem = f"{type(error).__name__}: {error}"
    for _ in range(PASSES):
        for name, run in list(ready.items()):
            line = lines[name]
            try:
                found = run(seconds / PASSES)
                line.seconds = found if line.seconds is None else min(found, line.seconds)
            except Exception as error:  # noqa: BLE001  the same
                line.seconds, line.problem = None, f"{type(error).__name__}: {error}"
                del ready[name]
    return list(lines.values())


def selected(
    patterns: Sequence[str], benchmarks: Sequence[Benchmark] = BENCHMARKS
) -> list[Benchmark]:
    """Those whose name matches a pattern (all without patterns), and always the control."""
    return [
        each
        for each in benchmarks
        if each.control or not patterns or any(fnmatch.fnmatch(each.name, p) for p in patterns)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the result to ``--out``; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m equivbench.gate.worker", description=__doc__)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", action="append", default=[])
    options = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(1)
    result = RoundResult(
        package=str(Path(equivbench.__file__).resolve().parent),
        environment=environment("cpu", 1),
        lines=measure(selected(options.only), options.seconds),
    )
    write_atomically(options.out, msgspec.json.encode(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
