"""False alarms and found changes of the gate in comparisons replayed from recorded rounds of
identical code.

    python tools/gate_replay.py FOLDER ... [--comparisons 1000] [--rounds 10] [--plant 10]
    [--without-floors]

Each FOLDER holds the baseline.jsonl and candidate.jsonl of `equivbench check --interleave HEAD HEAD
--out FOLDER`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from scipy.stats import binomtest

from equivbench.gate.compare import compare
from equivbench.gate.metrics import Thresholds
from equivbench.gate.noise import committed_floors
from equivbench.gate.replay import Recorded, recorded, replayed


def tally(
    rounds: Recorded, count: int, comparisons: int, factor: float, floors: bool
) -> Counter[str]:
    """Verdicts of at least ``comparisons`` replayed benchmark comparisons, every candidate
    ``factor`` times slower."""
    names = [name for name, one in rounds.benchmarks.items() if not one.control]
    table = committed_floors() if floors else {}
    found: Counter[str] = Counter()
    seed = 0
    while found.total() < comparisons:
        sides = replayed(rounds, count, seed, dict.fromkeys(names, factor))
        judged = compare(*sides, thresholds=Thresholds(), floors=table)
        found.update(each.verdict for each in judged if not each.control)
        seed += 1
    return found


def main() -> None:
    """Print both experiments with their 95% binomial bounds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--comparisons", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--plant", type=float, default=10.0, metavar="PERCENT")
    parser.add_argument(
        "--without-floors",
        action="store_true",
        help="judge as on a machine without committed floors",
    )
    options = parser.parse_args()
    rounds = recorded(options.folders)
    print(
        f"{rounds.count} recorded rounds of {len(rounds.benchmarks)} benchmarks on "
        f"{rounds.machine}, {options.rounds} a side"
    )
    null = tally(rounds, options.rounds, options.comparisons, 1.0, not options.without_floors)
    alarms = null["regression"] + null["improvement"]
    bound = binomtest(alarms, null.total()).proportion_ci(0.95, "exact").high
    print(
        f"identical code: {alarms} false alarms of {null.total()} (at most {bound:.2%}); "
        f"{dict(null)}"
    )
    planted = tally(
        rounds,
        options.rounds,
        options.comparisons,
        1 + options.plant / 100,
        not options.without_floors,
    )
    found = binomtest(planted["regression"], planted.total())
    low = found.proportion_ci(0.95, "exact").low
    print(
        f"{options.plant:g}% slower: {planted['regression']} of {planted.total()} found (at "
        f"least {low:.1%}); {dict(planted)}"
    )


if __name__ == "__main__":
    main()
