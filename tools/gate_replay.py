"""False alarms and found changes of the gate in comparisons replayed from recorded rounds of
identical code.

    python tools/gate_replay.py FOLDER ... [--suites 1000] [--rounds 10] [--plant 10]

Each FOLDER holds the baseline.jsonl and candidate.jsonl of `equivbench check --interleave HEAD HEAD
--out FOLDER`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from equivbench.errors import FailedError, IncomparableError
from equivbench.gate.compare import compare
from equivbench.gate.interleave import AGAIN, SIDES, WANTED, noisy
from equivbench.gate.reading import read_side
from equivbench.gate.samples import Samples, Side


@dataclass(frozen=True)
class Recorded:
    """Rounds of identical code from one machine: ``pairs[name][i]`` are the samples of both sides
    in the i-th recorded round."""

    benchmarks: Mapping[str, Samples]
    """One recorded measurement of each benchmark, for its name, context and control mark."""
    pairs: Mapping[str, Sequence[tuple[tuple[float, ...], tuple[float, ...]]]]

    @property
    def count(self) -> int:
        """Rounds that all benchmarks have."""
        return min(len(each) for each in self.pairs.values())

    @property
    def machine(self) -> str:
        """The machine key."""
        return next(iter(self.benchmarks.values())).context["machine"]


def recorded(folders: Iterable[Path]) -> Recorded:
    """The rounds in ``folders``, each written by ``check --interleave REV REV --out FOLDER``.

    Raises ``FailedError`` for a folder that does not hold both sides and ``IncomparableError``
    where machines differ.
    """
    benchmarks: dict[str, Samples] = {}
    pairs: dict[str, list[tuple[tuple[float, ...], tuple[float, ...]]]] = {}
    for folder in folders:
        sides = [read_side(folder / f"{name}.jsonl") for name in SIDES]
        for side in sides:
            for problem in side.unreadable:
                raise FailedError(problem.reason)
        others = {each.name: each for each in sides[1].measurements}
        for one in sides[0].measurements:
            other = others.get(one.name)
            if other is None or one.defect() or other.defect():
                raise FailedError(
                    f"{folder}: {one.name} was not measured on both sides; "
                    "record these rounds again"
                )
            known = benchmarks.setdefault(one.name, one)
            if not known.context == one.context == other.context:
                raise IncomparableError(
                    f"{folder}: {one.name} was measured on another machine, or is another version"
                )
            common = sorted(set(one.values) & set(other.values))
            pairs.setdefault(one.name, []).extend(
                (one.blocks[index], other.blocks[index]) for index in common
            )
    if not benchmarks:
        raise FailedError(
            "no rounds were recorded; `equivbench check --interleave HEAD HEAD --out FOLDER` "
            "records some"
        )
    return Recorded(benchmarks, pairs)


def replayed(
    rounds: Recorded,
    count: int,
    seed: int,
    slower: Mapping[str, float] | None = None,
    again: Mapping[str, int] | None = None,
) -> tuple[Side, Side]:
    """A comparison of ``count`` rounds drawn with replacement from those recorded, the sides
    exchanged at random; as many more of the benchmarks that ``again`` names, so many times.

    All benchmarks take the same rounds, so that what disturbed one still disturbs the others, the
    control among them. ``slower`` multiplies the candidate's seconds of the benchmarks that it
    names.
    """
    generator = np.random.default_rng([rounds.count, seed])
    shape = (1 + AGAIN, count)
    picks = generator.integers(0, rounds.count, size=shape).ravel()
    swaps = generator.integers(0, 2, size=shape).ravel()
    sides: tuple[list[Samples], list[Samples]] = ([], [])
    for name, one in rounds.benchmarks.items():
        own = count * (1 + (again or {}).get(name, 0))
        drawn, swapped = picks[:own], swaps[:own]
        for place, side in enumerate(sides):
            factor = (slower or {}).get(name, 1.0) if place else 1.0
            blocks = {
                index: tuple(factor * each for each in rounds.pairs[name][pick][place ^ int(swap)])
                for index, (pick, swap) in enumerate(zip(drawn, swapped, strict=True))
            }
            values = {index: min(block) for index, block in blocks.items()}
            side.append(replace(one, values=values, blocks=blocks, session="replayed"))
    return Side(tuple(sides[0])), Side(tuple(sides[1]))


def measured(
    rounds: Recorded, count: int, seed: int, slower: Mapping[str, float] | None = None
) -> tuple[Side, Side]:
    """A replayed comparison as `check --interleave` makes it: noisy benchmarks get more rounds."""
    again: Counter[str] = Counter()
    sides = replayed(rounds, count, seed, slower)
    for _ in range(AGAIN):
        names = noisy(sides, WANTED)
        if not names:
            break
        again.update(names)
        sides = replayed(rounds, count, seed, slower, again)
    return sides


def tally(
    rounds: Recorded, count: int, suites: int, factor: float
) -> tuple[Counter[str], dict[str, Counter[str]], int]:
    """Verdicts of all benchmarks in ``suites`` replayed comparisons of the whole suite, every
    candidate ``factor`` times slower; the same by benchmark; and in how many suites one benchmark
    or more was called slower."""
    names = [name for name, one in rounds.benchmarks.items() if not one.control]
    found: Counter[str] = Counter()
    by_name = {name: Counter[str]() for name in names}
    alarms = 0
    for seed in range(suites):
        sides = measured(rounds, count, seed, dict.fromkeys(names, factor))
        judged = [each for each in compare(*sides, thresholds={}) if not each.control]
        for each in judged:
            found[each.verdict] += 1
            by_name[each.benchmark][each.verdict] += 1
        alarms += any(each.verdict == "regression" for each in judged)
    return found, by_name, alarms


def main() -> None:
    """Print both experiments with their 95% binomial bounds, and the planted one by benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--suites", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--plant", type=float, default=10.0, metavar="PERCENT")
    options = parser.parse_args()
    rounds = recorded(options.folders)
    print(
        f"{rounds.count} recorded rounds of {len(rounds.benchmarks)} benchmarks on "
        f"{rounds.machine}, {options.rounds} a side, more for noisy ones"
    )
    null, _, alarms = tally(rounds, options.rounds, options.suites, 1.0)
    bound = binomtest(alarms, options.suites).proportion_ci(0.95, "exact").high
    print(
        f"identical code: a false alarm in {alarms} of {options.suites} suites (at most "
        f"{bound:.2%}); {dict(null)}"
    )
    planted, by_name, _ = tally(rounds, options.rounds, options.suites, 1 + options.plant / 100)
    found = binomtest(planted["regression"], planted.total())
    low = found.proportion_ci(0.95, "exact").low
    print(
        f"{options.plant:g}% slower: {planted['regression']} of {planted.total()} found (at "
        f"least {low:.1%}); {dict(planted)}"
    )
    for name, verdicts in sorted(by_name.items(), key=lambda item: item[1]["regression"]):
        share = verdicts["regression"] / verdicts.total()
        print(f"  {share:7.2%} found  {name}: {dict(verdicts)}")


if __name__ == "__main__":
    main()
